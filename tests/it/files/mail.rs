//! Files that were saved go along with a mail.

use super::*;
use crate::harness::{Manner, Smtp};

#[tokio::test]
async fn small_files_are_attached_and_large_ones_named() {
    let smtp = Smtp::start(Manner { tls: false, wrapped: false, login: false }).await;
    let section = smtp.section("smtp", "");
    let stops = "[[routes]]\nname = \"mail\"\nwhen = 'event.type == \"task_stopped\"'\nto = [\"boss\"]\n";
    let config = format!("{SAVES}[destinations.boss]\n{section}attach_max_bytes = \"1KiB\"\n{stops}");
    let mut harness = start(Setup::new().config(&config)).await;
    let large = "x".repeat(2 << 10);
    let plan = Plan::finish("Done.").with_file("answer.md", "text/markdown", "# 4\n").with_file("table.csv", "text/csv", large);
    done(&harness, plan).await;
    harness.drain().await;
    let mail = smtp.mails().remove(0);
    assert_eq!((mail.parts("text/markdown"), mail.parts("text/csv")), (vec!["# 4\n".to_owned()], Vec::new()));
    let text = mail.parts("text/plain").remove(0);
    assert!(text.contains("answer.md") && text.contains("table.csv"), "{text}");
}
