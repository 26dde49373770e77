package lambda

import (
	"fmt"
	"regexp"
	"strings"
)

// LatestVersion names the unpublished, mutable version of a function.
const LatestVersion = "$LATEST"

// An ARN is an Amazon Resource Name,
// arn:partition:service:region:account-id:resource.
type ARN struct {
	Partition, Service, Region, AccountID, Resource string
}

// String returns the ARN in its usual form.
func (a ARN) String() string {
	return "arn:" + a.Partition + ":" + a.Service + ":" + a.Region + ":" + a.AccountID + ":" + a.Resource
}

// ParseARN splits s at its first five colons; the resource may contain more.
// The error, if any, is of kind InvalidParameter.
func ParseARN(s string) (ARN, error) {
	p := strings.SplitN(s, ":", 6)
	if len(p) != 6 || p[0] != "arn" || p[1] == "" || p[2] == "" || p[5] == "" {
		return ARN{}, &Error{Kind: InvalidParameter, Op: "parse ARN", Message: fmt.Sprintf("%q is not an ARN", s)}
	}
	return ARN{p[1], p[2], p[3], p[4], p[5]}, nil
}

// A FunctionReference is a function as a caller names it. Qualifier is empty when the
// caller named none; it is then $LATEST.
type FunctionReference struct {
	Region, AccountID, Name, Qualifier string
}

// ARN returns the unqualified ARN of the function.
func (f FunctionReference) ARN() string {
	return ARN{"aws", "lambda", f.Region, f.AccountID, "function:" + f.Name}.String()
}

// QualifiedARN returns the ARN with its qualifier, or the unqualified one if there is none.
func (f FunctionReference) QualifiedARN() string {
	if f.Qualifier == "" {
		return f.ARN()
	}
	return f.ARN() + ":" + f.Qualifier
}

var (
	functionName = regexp.MustCompile(`^[a-zA-Z0-9-_]{1,64}$`)
	qualifier    = regexp.MustCompile(`^(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]{1,128})$`)
	accountID    = regexp.MustCompile(`^\d{12}$`)
	region       = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-\d$`)
)

// ParseFunctionReference reads the forms that the Lambda API allows for a function name:
//
//	my-function            my-function:v1
//	123456789012:function:my-function[:v1]
//	arn:aws:lambda:us-west-2:123456789012:function:my-function[:v1]
//
// Region and account that s leaves out are taken from home. A qualifier given both in s and
// in the argument must be the same (AWS: "The derived qualifier from the function name does
// not match the specified qualifier."). Errors are of kind InvalidParameter.
func ParseFunctionReference(s, givenQualifier string, home FunctionReference) (FunctionReference, error) {
	ref := FunctionReference{Region: home.Region, AccountID: home.AccountID}
	bad := func(format string, args ...any) (FunctionReference, error) {
		return FunctionReference{}, &Error{Kind: InvalidParameter, Op: "parse function name", Message: fmt.Sprintf(format, args...)}
	}
	rest := s
	if tail, ok := strings.CutPrefix(rest, "arn:"); ok {
		p := strings.SplitN(tail, ":", 4)
		if len(p) != 4 || !strings.HasPrefix(p[0], "aws") || p[1] != "lambda" || !region.MatchString(p[2]) {
			return bad("%s is not a Lambda function ARN", s)
		}
		ref.Region, rest = p[2], p[3]
	}
	if i := strings.Index(rest, ":function:"); i >= 0 {
		ref.AccountID, rest = rest[:i], rest[i+len(":function:"):]
		if !accountID.MatchString(ref.AccountID) {
			return bad("%s does not hold a 12-digit account id", s)
		}
	} else if tail, ok := strings.CutPrefix(rest, "function:"); ok {
		rest = tail
	}
	name, q, qualified := strings.Cut(rest, ":")
	if !functionName.MatchString(name) || qualified && !qualifier.MatchString(q) {
		return bad("%s is not a function name", s)
	}
	if givenQualifier != "" && !qualifier.MatchString(givenQualifier) {
		return bad("%s is not a qualifier", givenQualifier)
	}
	if qualified && givenQualifier != "" && q != givenQualifier {
		return bad("The derived qualifier from the function name does not match the specified qualifier.")
	}
	ref.Name, ref.Qualifier = name, q
	if givenQualifier != "" {
		ref.Qualifier = givenQualifier
	}
	return ref, nil
}
