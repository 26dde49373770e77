package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"cloister/lambda"
	"cloister/store"
)

// Kinds of this package's objects in the store. A function is named by its name. A version is
// named "instance:number" after the function's instance, so that the versions of a deleted
// function are out of reach from the moment it is gone, and padded, so that byte order is the
// order of publishing. An order belongs to the installation, not to an account.
const (
	kindFunction = "function"
	kindVersion  = "version"
	kindOrder    = "order"
)

// maxRewrites bounds how often an operation starts again because another writer was faster.
const maxRewrites = 16

// A function is the record of one function: $LATEST and what is common to all versions.
type function struct {
	Name        string
	Instance    string // random, made at creation: a function made again under an old name is another one
	RevisionID  string
	LastVersion int64          // the highest number ever published; numbers are never given twice
	Published   published      // the newest version, so that nothing is published twice
	Latest      configuration  // what $LATEST says it is
	Serving     *configuration // what $LATEST runs while Latest is in preparation or has failed; nil: Latest
	State       state
	Update      state  // of the last update; empty until the function was first active
	Preparation string // name of the order to prepare Latest; empty: none is under way
	Tags        map[string]string
}

// A version is the record of a published version. Only its state ever changes.
type version struct {
	Number        int64
	Instance      string // of its function
	RevisionID    string
	Configuration configuration
	State         state
}

// published says which content a version number was given to.
type published struct {
	Number int64
	Digest string // of the content of $LATEST when it was published
}

// A state is one of the API's State or LastUpdateStatus values with its reason.
type state struct{ Status, Reason, Code string }

// A configuration is code and settings at one point of a function's life.
type configuration struct {
	Sequence uint64 // counts the function's updates; its creation is 1
	Modified time.Time
	Content  content
}

// content is what publishing compares and what a user sets.
type content struct {
	Runtime, RuntimeVersionARN, Handler, Role, Description string
	Architecture, LogGroup                                 string
	MemoryMiB, TimeoutSeconds, EphemeralMiB                int32
	Variables                                              map[string]string // nil: the user gave no Environment
	Code                                                   lambda.Artifact
	CodeSHA256                                             string // base64, of the package
	CodeSize                                               int64  // bytes, of the package
}

// An order tells Run what an operation left to be done: to make a function's newest configuration
// ready, or to sweep up the versions of a function that was deleted.
type order struct {
	Account, Function string
	Instance          string  // of the function when the order was given
	Sequence          uint64  // of the configuration to prepare
	Versions          []int64 // published together with it, waiting for the same preparation
	Sweep             bool    // the function is gone: delete its versions
}

// digest identifies the content. Maps are encoded in the order of their keys.
func (c content) digest() string {
	body, err := json.Marshal(c)
	if err != nil {
		panic("control: content does not encode: " + err.Error()) // strings and numbers always do
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// runnable is $LATEST as the data plane knows it.
func (f *function) runnable(ref lambda.FunctionReference) lambda.Version {
	return f.serving().runnable(ref, f.Instance, lambda.LatestVersion)
}

// runnable is the version as the data plane knows it.
func (v *version) runnable(ref lambda.FunctionReference) lambda.Version {
	return v.Configuration.runnable(ref, v.Instance, v.qualifier())
}

// runnable is the version as the data plane knows it. The digest in its ID covers the instance
// and the sequence too: an environment must not outlive an update that changed nothing, nor serve
// a function that was deleted and made again.
func (c *configuration) runnable(ref lambda.FunctionReference, instance, version string) lambda.Version {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%d\n%s", instance, c.Sequence, c.Content.digest()))
	ref.Qualifier = version
	return lambda.Version{
		ID:  lambda.VersionID{AccountID: ref.AccountID, FunctionName: ref.Name, Version: version, Configuration: hex.EncodeToString(sum[:16])},
		ARN: ref.QualifiedARN(), Runtime: c.Content.Runtime, Handler: c.Content.Handler,
		MemoryMiB: int(c.Content.MemoryMiB), Timeout: time.Duration(c.Content.TimeoutSeconds) * time.Second, EphemeralMiB: int(c.Content.EphemeralMiB),
		Variables: c.Content.Variables, Role: c.Content.Role, Code: c.Content.Code, LogGroup: c.Content.LogGroup,
	}
}

// serving is the configuration that invocations of $LATEST use.
func (f *function) serving() *configuration {
	if f.Serving != nil {
		return f.Serving
	}
	return &f.Latest
}

func functionKey(ref lambda.FunctionReference) store.Key {
	return store.Key{Kind: kindFunction, Account: ref.AccountID, Name: ref.Name}
}

func versionKey(account, instance string, number int64) store.Key {
	return store.Key{Kind: kindVersion, Account: account, Name: versionPrefix(instance) + fmt.Sprintf("%019d", number)}
}

func versionPrefix(instance string) string { return instance + ":" }

func orderKey(name string) store.Key { return store.Key{Kind: kindOrder, Name: name} }

// orderName sorts orders by the time at which they were given, over all accounts.
func orderName(instance string, now time.Time) string {
	return fmt.Sprintf("%019d-%s", now.UnixNano(), instance)
}

// loadFunction reads a function. The error is ResourceNotFoundException if there is none.
func (s *Server) loadFunction(ctx context.Context, ref lambda.FunctionReference) (*function, uint64, error) {
	f, revision, err := load[function](ctx, s.store, functionKey(ref))
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, notFound(ref.QualifiedARN())
	}
	return f, revision, err
}

// load reads one record. The error is store.ErrNotFound if there is none.
func load[T any](ctx context.Context, from store.Store, key store.Key) (*T, uint64, error) {
	object, err := from.Get(ctx, key)
	if err != nil {
		return nil, 0, storeError("read "+key.Kind, err)
	}
	record, err := decode[T](object)
	return record, object.Revision, err
}

func decode[T any](object store.Object) (*T, error) {
	record := new(T)
	if err := json.Unmarshal(object.Body, record); err != nil {
		return nil, &lambda.Error{Kind: lambda.Corrupt, Op: "decode " + object.Kind, Err: err}
	}
	return record, nil
}

// write is the change that stores record at key if revision is still current; 0: if nothing is there.
func write(key store.Key, revision uint64, record any) store.Change {
	body, err := json.Marshal(record)
	if err != nil {
		panic("control: record does not encode: " + err.Error()) // strings and numbers always do
	}
	return store.Change{Key: key, Expect: revision, Body: body}
}

// erase is the change that deletes key if it is there.
func erase(key store.Key) store.Change {
	return store.Change{Key: key, Expect: store.AnyRevision, Delete: true}
}

// errUnchanged as the error of an edit says that there is nothing to commit.
var errUnchanged = errors.New("unchanged")

// change lets edit alter a function and commits it together with the changes that edit adds.
// When another writer was faster, edit runs again on the fresh record and decides anew.
func (s *Server) change(ctx context.Context, ref lambda.FunctionReference, edit func(*function) ([]store.Change, error)) error {
	for range maxRewrites {
		f, revision, err := s.loadFunction(ctx, ref)
		if err != nil {
			return err
		}
		changes, err := edit(f)
		if errors.Is(err, errUnchanged) {
			return nil
		}
		if err != nil {
			return err
		}
		err = s.commit(ctx, ref, append(changes, write(functionKey(ref), revision, f))...)
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return updateInProgress(ref)
}

// commit applies changes that touch one function, and forgets what was resolved of it. The
// outcome of a failed commit may be unknown, so that it forgets then, too.
func (s *Server) commit(ctx context.Context, ref lambda.FunctionReference, changes ...store.Change) error {
	defer s.resolved.suspend(ref)()
	if _, err := s.store.Commit(ctx, changes...); err != nil {
		return storeError("commit function", err)
	}
	return nil
}

// storeError says what we were doing. What the store finds wrong with a call is a fault of this package,
// and not one of the API's caller.
func storeError(op string, err error) error {
	kind := lambda.KindOf(err)
	if kind == lambda.InvalidParameter {
		kind = lambda.Internal
	}
	return &lambda.Error{Kind: kind, Op: op, Err: err}
}

// revise gives the function a new revision id, as every change of it that users can see does.
func (s *Server) revise(f *function) (err error) {
	f.RevisionID, err = s.uuid()
	return err
}

// uuid returns a random (version 4) UUID.
func (s *Server) uuid() (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(s.rand, b[:]); err != nil {
		return "", fmt.Errorf("make uuid: %w", err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

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
