package gateway

import (
	"net/http"
	"net/url"
	"testing"
)

func TestATargetIsFoundByAllOfItsPrefix(t *testing.T) {
	logs, trail, path := &route{}, &route{}, &route{}
	r := routes{byTarget: map[string]*route{"Logs_20140328": logs, "com.amazonaws.cloudtrail.v20131101": trail}, byPath: path}
	for target, want := range map[string]*route{
		"Logs_20140328.PutLogEvents":                      logs,
		"com.amazonaws.cloudtrail.v20131101.LookupEvents": trail,
		"com.amazonaws.LookupEvents":                      path,
		"Logs_20140328":                                   path,
		".":                                               path,
	} {
		request := &http.Request{Header: http.Header{"X-Amz-Target": {target}}, URL: &url.URL{Path: "/"}}
		if got := r.find(request); got != want {
			t.Errorf("%s: another service", target)
		}
	}
}
