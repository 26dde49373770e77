package control

import (
	"context"

	"cloister/lambda"
	"cloister/store"
)

// EachCode calls use with the code of every function and version of these accounts: the image and the base64
// SHA-256 of the package. It may give one code many times. What it gives at least is all that is named while
// it runs: functions come before versions, because code moves from a function to its versions and never back. An
// error means that some may be missing.
func (s *Server) EachCode(ctx context.Context, accounts []string, use func(code lambda.Artifact, codeSHA256 string)) error {
	visit := func(c *configuration) {
		if c != nil {
			use(c.Content.Code, c.Content.CodeSHA256)
		}
	}
	for _, account := range accounts {
		err := eachRecord(ctx, s.store, kindFunction, account, func(f *function) {
			visit(&f.Latest)
			visit(f.Serving)
		})
		if err != nil {
			return err
		}
		if err := eachRecord(ctx, s.store, kindVersion, account, func(v *version) { visit(&v.Configuration) }); err != nil {
			return err
		}
	}
	return nil
}

// eachRecordPage is how many records are read at a time.
const eachRecordPage = 100

// eachRecord calls use with every record of a kind and account.
func eachRecord[T any](ctx context.Context, from store.Store, kind, account string, use func(*T)) error {
	for after := ""; ; {
		page, err := from.List(ctx, kind, account, "", store.Page{After: after, Limit: eachRecordPage})
		if err != nil {
			return storeError("list "+kind, err)
		}
		for _, object := range page {
			after = object.Name
			record, err := decode[T](object)
			if err != nil {
				return err
			}
			use(record)
		}
		if len(page) < eachRecordPage {
			return nil
		}
	}
}
