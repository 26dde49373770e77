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
	kind := "Sender"
	if f.status >= http.StatusInternalServerError {
		kind = "Receiver"
	}
	var b bytes.Buffer
	b.WriteString(`<ErrorResponse xmlns="` + s.Namespace + `"><Error>`)
	writeElement(&b, "Type", kind)
	writeElement(&b, "Code", f.code)
	writeElement(&b, "Message", f.message)
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

// writeXML writes v as the element name.
func writeXML(b *bytes.Buffer, name string, s *shape, v reflect.Value) {
	switch s.kind {
	case kindStructure:
		b.WriteString("<" + name + ">")
		writeXMLMembers(b, s, v)
	case kindList:
		b.WriteString("<" + name + ">")
		for i := range v.Len() {
			writeXML(b, "member", s.element, v.Index(i))
		}
	case kindMap:
		b.WriteString("<" + name + ">")
		for _, key := range sortedKeys(v) {
			b.WriteString("<entry>")
			writeElement(b, "key", key.String())
			writeXML(b, "value", s.element, v.MapIndex(key))
			b.WriteString("</entry>")
		}
	default:
		writeElement(b, name, formatText(s, v, isoTime))
		return
	}
	b.WriteString("</" + name + ">")
}

// writeElement writes text that may be anything: what XML cannot hold becomes U+FFFD.
func writeElement(b *bytes.Buffer, name, text string) {
	b.WriteString("<" + name + ">")
	_ = xml.EscapeText(b, []byte(text)) // a Buffer returns no error
	b.WriteString("</" + name + ">")
}
