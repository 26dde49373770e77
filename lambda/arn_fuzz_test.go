package lambda

import (
	"errors"
	"testing"
)

// A name that is understood is one function: its ARN, which everything else goes by, means the same again.
func FuzzFunctionNamesMeanOneFunction(f *testing.F) {
	for _, name := range []string{
		"my-function", "my-function:v1", "123456789012:function:my-function", "123456789012:function:my-function:$LATEST", "function:f",
		"arn:aws:lambda:us-west-2:123456789012:function:my-function", "arn:aws:lambda:us-west-2:123456789012:function:my-function:7",
		"arn:aws-cn:lambda:cn-north-1:123456789012:function:f:$LATEST.PUBLISHED", "arn:aws:lambda:us-west-2::function:f", "arn:aws:s3:::b",
		"", ":", "arn:", "arn:aws:lambda:us-west-2", ":function:", "a:function:b", "f:", "f:$", "f\x00", "f:a:b", "functions:f", "é",
	} {
		f.Add(name, "")
		f.Add(name, "v1")
	}
	home := FunctionReference{Region: "eu-central-1", AccountID: "999999999999"}
	f.Fuzz(func(t *testing.T, name, qualifier string) {
		ref, err := ParseFunctionReference(name, qualifier, home)
		if err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || e.Kind != InvalidParameter || ref != (FunctionReference{}) {
				t.Fatalf("%+v, %v: want an invalid parameter", ref, err)
			}
			return
		}
		again, err := ParseFunctionReference(ref.QualifiedARN(), "", FunctionReference{})
		if err != nil || again != ref {
			t.Fatalf("%q is %+v, its ARN %s is %+v, %v", name, ref, ref.QualifiedARN(), again, err)
		}
		if qualifier != "" && ref.Qualifier != qualifier {
			t.Fatalf("asked for %q of %q, got %q", qualifier, name, ref.Qualifier)
		}
		if arn, err := ParseARN(ref.ARN()); err != nil || arn.AccountID != ref.AccountID || arn.Resource != "function:"+ref.Name {
			t.Fatalf("%s is %+v, %v", ref.ARN(), arn, err)
		}
	})
}

func FuzzARNsAreReadAsTheyAreWritten(f *testing.F) {
	for _, s := range []string{
		"arn:aws:iam::123456789012:role/path/name", "arn:aws:lambda:us-east-1:123456789012:function:f:1", "arn:aws:s3:::bucket/key:with:colons",
		"arn:aws:sts::123456789012:assumed-role/r/s", "arn::iam::1:x", "arn:aws:iam:::", "arn:aws:iam", "", "ARN:aws:iam::1:x", "arn:aws:iam::1:\x00",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		arn, err := ParseARN(s)
		if err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || e.Kind != InvalidParameter || arn != (ARN{}) {
				t.Fatalf("%+v, %v: want an invalid parameter", arn, err)
			}
			return
		}
		if arn.String() != s {
			t.Fatalf("%q is written as %q", s, arn)
		}
	})
}
