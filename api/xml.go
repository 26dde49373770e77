package api

import (
	"bytes"
	"encoding/xml"
	"net/http"
	"reflect"
)

// encode writes <NameResponse><NameResult>...</NameResult><ResponseMetadata>....
func (query) encode(s *Service, w http.ResponseWriter, op *Operation, requestID string, out reflect.Value) {
	var b bytes.Buffer
	b.WriteString("<" + op.Name + `Response xmlns="` + s.Namespace + `">`)
	if op.Result != "" {
		b.WriteString("<" + op.Result + ">")
		writeXMLMembers(&b, s.mustShape(op.output), out)
		b.WriteString("</" + op.Result + ">")
	}
	b.WriteString("<ResponseMetadata>")
	writeElement(&b, "RequestId", requestID)
	b.WriteString("</ResponseMetadata></" + op.Name + "Response>")
	writeBody(w, op.Status, requestID, "text/xml", b.Bytes())
}

func (query) encodeError(s *Service, w http.ResponseWriter, requestID string, f failure) {
	var b bytes.Buffer
	b.WriteString(`<ErrorResponse xmlns="` + s.Namespace + `"><Error>`)
	writeElement(&b, "Type", f.blame())
	writeElement(&b, "Code", f.code)
	writeElement(&b, "Message", f.message)
	if f.shape != nil {
		for _, m := range f.shape.members {
			if m.path != "message" && !m.absent(f.value) {
				writeXML(&b, m.wire, m.shape, m.get(f.value))
			}
		}
	}
	b.WriteString("</Error>")
	writeElement(&b, "RequestId", requestID)
	b.WriteString("</ErrorResponse>")
	writeBody(w, f.status, requestID, "text/xml", b.Bytes())
}

// writeXMLMembers writes the members of v, a structure, that are set.
func writeXMLMembers(b *bytes.Buffer, s *shape, v reflect.Value) {
	for _, m := range s.members {
		if !m.absent(v) {
			writeXML(b, m.wire, m.shape, m.get(v))
		}
	}
}

// writeXML writes v as the element name. A flat list or map is one element for
// each of its members.
func writeXML(b *bytes.Buffer, name string, s *shape, v reflect.Value) {
	switch s.kind {
	case kindStructure:
		b.WriteString("<" + name + ">")
		writeXMLMembers(b, s, v)
		b.WriteString("</" + name + ">")
	case kindList:
		writeParts(b, name, s.memberName, s.flat, func(part string) {
			for i := range v.Len() {
				writeXML(b, part, s.element, v.Index(i))
			}
		})
	case kindMap:
		writeParts(b, name, "entry", s.flat, func(part string) {
			for _, key := range sortedKeys(v) {
				b.WriteString("<" + part + ">")
				writeElement(b, s.keyName, key.String())
				writeXML(b, s.valueName, s.element, v.MapIndex(key))
				b.WriteString("</" + part + ">")
			}
		})
	default:
		writeElement(b, name, formatText(s, v, isoTime))
	}
}

// writeParts calls parts with what each part of a list or map is called, and writes
// the element around all of them unless it is flat.
func writeParts(b *bytes.Buffer, name, part string, flat bool, parts func(name string)) {
	if flat {
		parts(name)
		return
	}
	b.WriteString("<" + name + ">")
	parts(part)
	b.WriteString("</" + name + ">")
}

// writeElement writes text that may be anything: what XML cannot hold becomes U+FFFD.
func writeElement(b *bytes.Buffer, name, text string) {
	b.WriteString("<" + name + ">")
	_ = xml.EscapeText(b, []byte(text)) // a Buffer returns no error
	b.WriteString("</" + name + ">")
}
