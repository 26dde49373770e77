package policy

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

const maxDepth = 8 // a policy needs 6: policy, statements, statement, condition, operator, values

// A node is a JSON value. Numbers and booleans are texts that are not quoted, as IAM takes them
// in conditions; null is nothing that a policy may hold.
type node struct {
	kind    kind
	name    string // as a member of an object
	text    string
	members []node // of an object, in order, no name twice
	items   []node // of an array
}

type kind uint8

const (
	text     kind = iota + 1
	unquoted      // a number or boolean
	array
	object
)

// parseJSON reads a document strictly: one value, no member twice, valid UTF-8, few levels.
func parseJSON(document string) (node, error) {
	if len(document) > MaxDocumentBytes {
		return node{}, syntax("the document is too long")
	}
	if !utf8.ValidString(document) || !json.Valid([]byte(document)) {
		return node{}, malformed("This policy contains invalid Json")
	}
	decoder := json.NewDecoder(strings.NewReader(document))
	decoder.UseNumber()
	return readNode(decoder, 1)
}

func readNode(decoder *json.Decoder, depth int) (node, error) {
	token, err := decoder.Token()
	if err != nil {
		return node{}, malformed("This policy contains invalid Json")
	}
	if depth > maxDepth {
		return node{}, syntax("the document is nested too deeply")
	}
	switch v := token.(type) {
	case string:
		return node{kind: text, text: v}, nil
	case json.Number:
		return node{kind: unquoted, text: v.String()}, nil
	case bool:
		return node{kind: unquoted, text: fmt.Sprint(v)}, nil
	case json.Delim:
		if v == '[' {
			return readArray(decoder, depth)
		}
		return readObject(decoder, depth)
	}
	return node{}, syntax("null is not allowed")
}

func readArray(decoder *json.Decoder, depth int) (node, error) {
	n := node{kind: array}
	for decoder.More() {
		item, err := readNode(decoder, depth+1)
		if err != nil {
			return node{}, err
		}
		n.items = append(n.items, item)
	}
	_, err := decoder.Token()
	return n, err
}

func readObject(decoder *json.Decoder, depth int) (node, error) {
	n := node{kind: object}
	names := map[string]bool{}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return node{}, malformed("This policy contains invalid Json")
		}
		name, _ := token.(string)
		if names[name] {
			return node{}, syntax(fmt.Sprintf("%q is there twice", name))
		}
		names[name] = true
		member, err := readNode(decoder, depth+1)
		if err != nil {
			return node{}, err
		}
		member.name = name
		n.members = append(n.members, member)
	}
	_, err := decoder.Token()
	return n, err
}

// stringsOf returns the texts of an element that may be one text or an array of them. Numbers
// and booleans count as texts in conditions only, which are the only elements with a colon in their name.
func stringsOf(n node) ([]string, error) {
	items := []node{n}
	if n.kind == array {
		items = n.items
	}
	texts := make([]string, 0, len(items))
	for _, item := range items {
		if item.kind != text && (item.kind != unquoted || !strings.Contains(n.name, ":")) {
			return nil, syntax(fmt.Sprintf("%q must be a string or an array of strings", n.name))
		}
		texts = append(texts, item.text)
	}
	return texts, nil
}
