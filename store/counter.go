package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"cloister/lambda"
)

// NextNumber returns the number that follows a counter's last one, from 1 on, and the change that
// takes it. Put that change into the commit that uses the number: of two callers who were
// given the same number one gets ErrConflict and asks again. So the numbers that are in use
// have neither gaps nor repetitions. A counter that is deleted begins anew.
func NextNumber(ctx context.Context, s Store, counter Key) (uint64, Change, error) {
	var last uint64
	o, err := s.Get(ctx, counter)
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return 0, Change{}, err
	default:
		if last, err = strconv.ParseUint(string(o.Body), 10, 63); err != nil {
			return 0, Change{}, &lambda.Error{Kind: lambda.Corrupt, Op: fmt.Sprintf("read counter %q", counter.Name), Err: err}
		}
	}
	return last + 1, Change{Key: counter, Expect: o.Revision, Body: strconv.AppendUint(nil, last+1, 10)}, nil
}
