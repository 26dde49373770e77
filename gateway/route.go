package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"cloister/api"
	"cloister/iam/sigv4"
)

// A route is a Service with what each call would otherwise ask it again.
type route struct {
	service Service
	api     *api.Service
	server  any
}

// routes says which service a request is for.
type routes struct {
	byName   map[string]*route
	byTarget map[string]*route // by prefix of X-Amz-Target
	byForm   *route            // for a form that says nothing else
	byPath   *route            // for all the rest
}

// newRoutes requires a service with REST paths, which gets what names no service, and takes the first with
// the query protocol for forms that do not.
func newRoutes(services []Service) (routes, error) {
	r := routes{byName: map[string]*route{}, byTarget: map[string]*route{}}
	for _, service := range services {
		to := &route{service, service.API(), service.Server()}
		if r.byName[to.api.Name] != nil {
			return r, fmt.Errorf("gateway: two services named %q", to.api.Name)
		}
		r.byName[to.api.Name] = to
		switch {
		case to.api.Protocol == api.JSONRPC:
			r.byTarget[to.api.TargetPrefix] = to
		case to.api.Protocol == api.Query && r.byForm == nil:
			r.byForm = to
		case to.api.Protocol == api.RESTJSON && r.byPath == nil:
			r.byPath = to
		}
	}
	if r.byPath == nil {
		return r, errors.New("gateway: no service with REST paths, so nothing could answer an unknown path")
	}
	if r.byForm == nil {
		r.byForm = r.byPath
	}
	return r, nil
}

// find returns the service whose name is in the credential scope of the signature. If the scope
// names none of ours the request will be refused, and X-Amz-Target, then the content type, then
// the path tell whose words the client understands.
func (s *routes) find(r *http.Request) *route {
	if to := s.byName[sigv4.ClaimedService(r)]; to != nil {
		return to
	}
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		operation := max(strings.LastIndexByte(target, '.'), 0) // some prefixes have dots themselves
		if to := s.byTarget[target[:operation]]; to != nil {
			return to
		}
	}
	form := strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded")
	if form || r.URL.Path == "/" && r.URL.RawQuery != "" {
		return s.byForm
	}
	return s.byPath
}
