//! What both versions of Manus's API say in the same words: files, content, reasons.
//!
//! Times are in seconds (tasks) or milliseconds (message events).

use serde_json::Value;

use crate::provider::json::name_in_url;
pub(super) use crate::provider::json::{count, is_true, items, member, number, text, time};
use crate::task::{File, FileStatus, State};

/// A file under any of its names: webhook attachments, v2 message attachments, v1 task output. A bare link counts as well.
pub(super) fn file(of: &Value, message_id: Option<&str>) -> Option<File> {
    let bare = of.as_str().filter(|text| text.starts_with("https://") || text.starts_with("http://"));
    let url = bare.map(ToOwned::to_owned).or_else(|| text(of, &["url", "fileUrl", "file_url"]));
    let name = text(of, &["file_name", "filename", "fileName", "name"]).or_else(|| url.as_deref().and_then(name_in_url));
    if url.is_none() && name.is_none() {
        return None;
    }
    Some(File {
        name: name.unwrap_or_else(|| "file".to_owned()),
        content_type: text(of, &["content_type", "mimeType", "mime_type"]),
        size_bytes: count(of, "size_bytes").or_else(|| count(of, "size")),
        provider_url: url,
        status: FileStatus::Skipped,
        message_id: message_id.map(ToOwned::to_owned),
        ..File::default()
    })
}

/// What is said in a message: a string, or the text parts of a list.
pub(super) fn content(of: &Value) -> String {
    match of.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().filter_map(part).collect::<Vec<_>>().join("\n\n"),
        _ => String::new(),
    }
}

fn part(of: &Value) -> Option<String> {
    of.as_str().map(ToOwned::to_owned).or_else(|| text(of, &["text"]))
}

/// The word for why a task in this state stopped.
pub(super) fn stop_reason(state: State) -> Option<String> {
    state.stop_reason().map(ToOwned::to_owned)
}

/// An error's text: a string, or the `message` of an object.
pub(super) fn error_text(of: &Value, name: &str) -> Option<String> {
    let error = of.get(name)?;
    text(of, &[name]).or_else(|| text(error, &["message", "content", "reason", "code"]))
}

/// The strings of a list, such as the answers to choose from; objects give their label.
pub(super) fn strings(of: &Value, name: &str) -> Vec<String> {
    items(of, name).iter().filter_map(|item| part(item).or_else(|| text(item, &["label", "title", "value"]))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_file_has_three_names() {
        for named in [
            json!({"file_name": "r.pdf", "url": "https://x.example/r", "size_bytes": "12", "content_type": "application/pdf"}),
            json!({"filename": "r.pdf", "url": "https://x.example/r", "size_bytes": 12, "content_type": "application/pdf"}),
            json!({"fileName": "r.pdf", "fileUrl": "https://x.example/r", "size_bytes": 12.0, "mimeType": "application/pdf"}),
        ] {
            let file = file(&named, Some("m1")).unwrap();
            assert_eq!((file.name.as_str(), file.size_bytes), ("r.pdf", Some(12)));
            assert_eq!(file.provider_url.as_deref(), Some("https://x.example/r"));
            assert_eq!(file.content_type.as_deref(), Some("application/pdf"));
        }
        assert_eq!(file(&json!("https://x.example/a/b.md?Signature=s"), None).unwrap().name, "b.md");
        assert_eq!(file(&json!({"url": "https://x.example/"}), None).unwrap().name, "file");
        assert_eq!(file(&json!({"type": "image"}), None), None);
        assert_eq!(file(&json!(7), None), None);
        assert_eq!(file(&json!("no link"), None), None);
    }
}
