//! `inspect`: documents as indented JSON, one line each, or through a template.

use serde::Serialize as _;
use serde_json::Value;

use super::error::Failure;
use super::template::Format;

/// Documents in the format asked for.
pub(crate) fn text(documents: &[Value], format: Option<&str>) -> Result<String, Failure> {
    match format.unwrap_or_default() {
        "" => Ok(indented(documents)),
        "json" => {
            let list = Value::Array(documents.to_vec());
            Ok(format!("{list}\n"))
        }
        template => {
            let format = Format::parse(template)?;
            let mut text = String::new();
            for document in documents {
                text.push_str(&format.fill(document)?);
                text.push('\n');
            }
            Ok(text)
        }
    }
}

/// A list with Docker's four spaces.
fn indented(documents: &[Value]) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    // Values with string keys always serialize, and JSON is UTF-8.
    documents.serialize(&mut serializer).expect("a JSON value serializes");
    let mut text = String::from_utf8(bytes).expect("JSON is UTF-8");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::text;

    #[test]
    fn documents_are_indented_by_four() {
        let documents = [json!({"Id": "a", "Mounts": []})];
        insta::assert_snapshot!(text(&documents, None).unwrap(), @r#"
        [
            {
                "Id": "a",
                "Mounts": []
            }
        ]
        "#);
        assert_eq!(text(&documents, Some("{{.Id}}")).unwrap(), "a\n");
        assert_eq!(text(&[], None).unwrap(), "[]\n");
    }
}
