// Package lambda is the vocabulary of Cloister: what a function, a version, an
// execution environment, an invocation and its result are, and which kinds of
// error can happen on the way. Every other package speaks in these words.
//
// It holds data and rules about data only: no I/O, no clocks, no goroutines, and
// nothing but the standard library. It is not the wire API: the shapes that
// clients see are generated in api/lambdaapi.
//
// The path of one invocation, in these types:
//
//	gateway    reads a signed HTTPS request
//	invoke     resolves a Qualifier to a Version
//	placement  finds an idle Environment of that Version, or has one created
//	worker     hands the Invocation to the runtime inside it
//	           … and the Result goes back up.
//
// Invariant: an Environment belongs to one VersionID for life, so it never serves
// two accounts, two functions, two versions or two configurations of $LATEST.
package lambda
