package main

import (
	"encoding/json"
	"fmt"
	"regexp"

	"cloister/api/internal/botocore"
)

// drift says, a line for each, what the targets' models in newer add, remove and
// change, and whether the generator would refuse them.
func drift(pinned, newer *botocore.Archive) ([]string, error) {
	var lines []string
	for _, t := range targets {
		old, err := pinned.Model(t.directory, t.version)
		if err != nil {
			return nil, err
		}
		add := func(what string) { lines = append(lines, t.name+": "+what) }
		text, err := newer.File(botocore.ModelPath(t.directory, t.version))
		if err != nil {
			add(fmt.Sprintf("- version %s of the API", t.version))
			continue
		}
		m, unknown := parseWithoutUnknown(text)
		for _, err := range unknown {
			add("! the generator does not know what it says: " + err.Error())
		}
		if m == nil {
			continue
		}
		for _, difference := range botocore.Compare(old, m) {
			add(difference)
		}
		if _, err := generate(t, m); err != nil {
			add("! the generator refuses it: " + err.Error())
		}
	}
	return lines, nil
}

var unknownField = regexp.MustCompile(`unknown field "(.+)"$`)

// maxUnknown bounds how many new traits are named at once.
const maxUnknown = 20

// parseWithoutUnknown reads a model as far as it is understood: it returns an error
// for each unknown trait and drops that. The model is nil if that does not help.
func parseWithoutUnknown(text []byte) (*botocore.Model, []error) {
	var unknown []error
	for range maxUnknown {
		m, err := botocore.ParseModel(text)
		if err == nil {
			return m, unknown
		}
		unknown = append(unknown, err)
		field := unknownField.FindStringSubmatch(err.Error())
		var tree any
		if field == nil || json.Unmarshal(text, &tree) != nil {
			break
		}
		drop(tree, field[1])
		if text, err = json.Marshal(tree); err != nil {
			break
		}
	}
	return nil, unknown
}

// drop removes all members of that name from a JSON value.
func drop(tree any, name string) {
	switch tree := tree.(type) {
	case map[string]any:
		delete(tree, name)
		for _, each := range tree {
			drop(each, name)
		}
	case []any:
		for _, each := range tree {
			drop(each, name)
		}
	}
}
