package api

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// Labels is what Match read from a request and Decode needs again. It is opaque
// and belongs to that request and operation only.
type Labels struct {
	path []string    // RESTJSON: decoded labels, in the order of the operation's URI
	form *parameters // Query: the parsed form
}

// A router finds the operation of a request by its path, segment by segment.
// It is read-only once built.
type router struct {
	root node
}

// A node is one segment of the paths that begin alike.
type node struct {
	literals map[string]*node
	label    *node // any one segment that is not empty
	rest     *node // any number of segments: a greedy label, the last of a path
	routes   map[string][]route
}

// A route is an operation whose path ends at a node.
type route struct {
	operation *Operation
	fixed     url.Values // query parameters that tell operations on one path apart
}

func newRouter(operations []*Operation) *router {
	r := &router{}
	for _, op := range operations {
		path, query, _ := strings.Cut(op.URI, "?")
		fixed, err := url.ParseQuery(query)
		if err != nil {
			panic(fmt.Sprintf("api: URI of %s: %v", op.Name, err)) // the generator has checked it
		}
		op.labels = nil
		n := &r.root
		for segment := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
			n = n.child(segment)
			if name, ok := labelName(segment); ok {
				op.labels = append(op.labels, name)
			}
		}
		n.add(op, fixed)
	}
	return r
}

// labelName returns the name in {Name} or {Name+}.
func labelName(segment string) (string, bool) {
	if !strings.HasPrefix(segment, "{") {
		return "", false
	}
	return strings.TrimSuffix(strings.Trim(segment, "{}"), "+"), true
}

// child returns the node below n for a segment of a URI, made if missing.
func (n *node) child(segment string) *node {
	place := &n.label
	switch {
	case strings.HasSuffix(segment, "+}"):
		place = &n.rest
	case !strings.HasPrefix(segment, "{"):
		if n.literals == nil {
			n.literals = map[string]*node{}
		}
		if n.literals[segment] == nil {
			n.literals[segment] = &node{}
		}
		return n.literals[segment]
	}
	if *place == nil {
		*place = &node{}
	}
	return *place
}

// add puts the route before those with fewer fixed parameters. Two that could
// both match are a mistake in the model, which TestNoTwoOperationsShareARoute finds.
func (n *node) add(op *Operation, fixed url.Values) {
	if n.routes == nil {
		n.routes = map[string][]route{}
	}
	routes := n.routes[op.Method]
	i := 0
	for i < len(routes) && len(routes[i].fixed) >= len(fixed) {
		i++
	}
	routes = append(routes, route{})
	copy(routes[i+1:], routes[i:])
	routes[i] = route{op, fixed}
	n.routes[op.Method] = routes
}

// match returns the operation of a request and the labels in its path. It works
// on the escaped path, because SDKs send the / of an ARN as %2F.
func (r *router) match(request *http.Request) (*Operation, Labels, error) {
	path := strings.TrimPrefix(request.URL.EscapedPath(), "/")
	path = strings.TrimSuffix(path, "/")
	op, escaped := r.root.find(path, false, request, nil)
	if op == nil {
		return nil, Labels{}, unknownOperation(http.StatusNotFound, "")
	}
	for i, label := range escaped {
		decoded, err := url.PathUnescape(label)
		if err != nil || !utf8.ValidString(decoded) {
			return nil, Labels{}, malformed("The path is not valid UTF-8 in percent encoding")
		}
		escaped[i] = decoded
	}
	return op, Labels{path: escaped}, nil
}

// find follows path, from which done says that nothing is left. A literal is
// tried before a label. The recursion is as deep as the longest URI of the
// service, whatever the path.
func (n *node) find(path string, done bool, r *http.Request, labels []string) (*Operation, []string) {
	if done {
		return n.operation(r), labels
	}
	segment, rest, more := strings.Cut(path, "/")
	if next := n.literals[segment]; next != nil {
		if op, found := next.find(rest, !more, r, labels); op != nil {
			return op, found
		}
	}
	if n.label != nil && segment != "" {
		if op, found := n.label.find(rest, !more, r, append(labels, segment)); op != nil {
			return op, found
		}
	}
	if n.rest != nil && path != "" {
		return n.rest.operation(r), append(labels, path)
	}
	return nil, nil
}

// operation returns the operation that ends at n with the request's method and
// whose fixed query parameters the request has.
func (n *node) operation(r *http.Request) *Operation {
	for _, candidate := range n.routes[r.Method] {
		if len(candidate.fixed) == 0 || contains(r.URL.Query(), candidate.fixed) {
			return candidate.operation
		}
	}
	return nil
}

// contains says whether values has every parameter of fixed.
func contains(values, fixed url.Values) bool {
	for name := range fixed {
		if values.Get(name) != fixed.Get(name) {
			return false
		}
	}
	return true
}
