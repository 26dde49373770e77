package runtimes

import (
	"slices"
	"strings"
	"time"

	"cloister/lambda"
)

// A lifecycle says until when a runtime is supported and may still be used. Dates are
// days in UTC; an empty one has not been announced.
type lifecycle struct {
	identifier                             string
	deprecated, createBlocked, updateBlock string
}

// lifecycles are AWS's dates (developer guide, "Lambda runtimes", as of November 2026), by
// family. They are data that moves: AWS has put off blocks more than once.
var lifecycles = []lifecycle{
	{"nodejs", "2016-08-30", "2016-09-30", "2016-10-31"},
	{"nodejs4.3", "2020-03-05", "2020-02-03", "2020-03-05"},
	{"nodejs4.3-edge", "2020-03-05", "2019-03-31", "2019-04-30"},
	{"nodejs6.10", "2019-08-12", "2019-07-12", "2019-08-12"},
	{"nodejs8.10", "2020-03-06", "2020-02-04", "2020-03-06"},
	{"nodejs10.x", "2021-07-30", "2021-07-30", "2022-02-14"},
	{"nodejs12.x", "2023-03-31", "2023-03-31", "2023-04-30"},
	{"nodejs14.x", "2023-12-04", "2024-01-09", "2027-03-03"},
	{"nodejs16.x", "2024-06-12", "2027-02-01", "2027-03-03"},
	{"nodejs18.x", "2025-09-01", "2027-02-01", "2027-03-03"},
	{"nodejs20.x", "2026-04-30", "2027-02-01", "2027-03-03"},
	{"nodejs22.x", "2027-04-30", "2027-06-01", "2027-07-01"},
	{"nodejs24.x", "2028-04-30", "2028-06-01", "2028-07-01"},
	{"nodejs26.x", "", "", ""},

	{"python2.7", "2021-07-15", "2021-07-15", "2022-05-30"},
	{"python3.6", "2022-07-18", "2022-07-18", "2022-08-29"},
	{"python3.7", "2023-12-04", "2024-01-09", "2027-03-03"},
	{"python3.8", "2024-10-14", "2027-02-01", "2027-03-03"},
	{"python3.9", "2025-12-15", "2027-02-01", "2027-03-03"},
	{"python3.10", "2026-10-31", "2027-02-01", "2027-03-03"},
	{"python3.11", "2027-06-30", "2027-07-31", "2027-08-31"},
	{"python3.12", "2028-10-31", "2028-11-30", "2029-01-10"},
	{"python3.13", "2029-06-30", "2029-07-31", "2029-08-31"},
	{"python3.14", "2029-06-30", "2029-07-31", "2029-08-31"},
	{"python3.15", "", "", ""},

	{"provided", "2024-01-08", "2024-02-08", "2027-03-03"},
	{"provided.al2", "2026-07-31", "2027-02-01", "2027-03-03"},
	{"provided.al2023", "2029-06-30", "2029-07-31", "2029-08-31"},

	{"java8", "2024-01-08", "2024-02-08", "2027-03-03"},
	{"java8.al2", "2027-06-30", "2027-07-31", "2027-08-31"},
	{"java8.al2023", "", "", ""},
	{"java11", "2027-06-30", "2027-07-31", "2027-08-31"},
	{"java11.al2023", "", "", ""},
	{"java17", "2027-06-30", "2027-07-31", "2027-08-31"},
	{"java17.al2023", "", "", ""},
	{"java21", "2029-06-30", "2029-07-31", "2029-08-31"},
	{"java25", "2029-06-30", "2029-07-31", "2029-08-31"},

	{"dotnetcore1.0", "2019-06-27", "2019-06-30", "2019-07-30"},
	{"dotnetcore2.0", "2019-05-30", "2019-04-30", "2019-05-30"},
	{"dotnetcore2.1", "2022-01-05", "2022-01-05", "2022-04-13"},
	{"dotnetcore3.1", "2023-04-03", "2023-04-03", "2023-05-03"},
	{"dotnet6", "2024-12-20", "2027-02-01", "2027-03-03"},
	{"dotnet8", "2026-11-10", "2027-02-01", "2027-03-03"},
	{"dotnet10", "2028-11-14", "2028-12-14", "2029-01-15"},

	{"ruby2.5", "2021-07-30", "2021-07-30", "2022-03-31"},
	{"ruby2.7", "2023-12-07", "2024-01-09", "2027-03-03"},
	{"ruby3.2", "2026-03-31", "2027-02-01", "2027-03-03"},
	{"ruby3.3", "2027-03-31", "2027-04-30", "2027-05-31"},
	{"ruby3.4", "2028-03-31", "2028-04-30", "2028-05-31"},
	{"ruby4.0", "2029-03-31", "2029-04-30", "2029-05-31"},

	{"go1.x", "2024-01-08", "2024-02-08", "2027-03-03"},
}

// An Offer says whether a host can provide a runtime.
type Offer struct {
	Identifier  string
	Interpreter string // on the host, or empty if it is missing
	Install     string // what to do if it is missing
}

// CheckCreate refuses a runtime that new functions may not use: one that AWS does not know or
// has blocked at this time, or that the host with these offers lacks. The error is of
// kind lambda.InvalidParameter with a text for the caller.
func CheckCreate(identifier string, now time.Time, offers []Offer) error {
	return check(identifier, now, offers, func(l lifecycle) string { return l.createBlocked })
}

// CheckUpdate is CheckCreate for a change of an existing function to this runtime.
func CheckUpdate(identifier string, now time.Time, offers []Offer) error {
	return check(identifier, now, offers, func(l lifecycle) string { return l.updateBlock })
}

func check(identifier string, now time.Time, offers []Offer, blocked func(lifecycle) string) error {
	const op = "check runtime"
	today := now.UTC().Format(time.DateOnly)
	isBlocked := func(l lifecycle) bool { return blocked(l) != "" && blocked(l) <= today }
	i := slices.IndexFunc(lifecycles, func(l lifecycle) bool { return l.identifier == identifier })
	if i < 0 {
		var known []string
		for _, l := range lifecycles {
			if !isBlocked(l) {
				known = append(known, l.identifier)
			}
		}
		return lambda.Errorf(lambda.InvalidParameter, op, "Value %s at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: [%s] or be a valid ARN",
			shorten(identifier), strings.Join(known, ", "))
	}
	if isBlocked(lifecycles[i]) {
		return lambda.Errorf(lambda.InvalidParameter, op, "The runtime parameter of %s is no longer supported for creating or updating AWS Lambda functions. "+
			"We recommend you use a supported runtime while creating or updating functions.", identifier)
	}
	return available(identifier, offers)
}

// available refuses a runtime that the offers do not include, with what would help.
func available(identifier string, offers []Offer) error {
	const op = "find runtime"
	var have []string
	for _, o := range offers {
		if o.Interpreter != "" {
			have = append(have, o.Identifier)
		}
	}
	list := strings.Join(have, ", ")
	i := slices.IndexFunc(offers, func(o Offer) bool { return o.Identifier == identifier })
	if i < 0 {
		return lambda.Errorf(lambda.InvalidParameter, op, "Cloister does not run %s yet. This host has: %s.", shorten(identifier), list)
	}
	if offers[i].Interpreter == "" {
		return lambda.Errorf(lambda.InvalidParameter, op, "This host has no %s. To get it, %s, or use a runtime that this host has: %s.", identifier, offers[i].Install, list)
	}
	return nil
}

// shorten keeps a caller's long nonsense out of messages.
func shorten(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}
