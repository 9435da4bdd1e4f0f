//! Archives that do not work.

use super::*;

#[tokio::test]
async fn an_archive_that_cannot_be_written_is_told_and_holds_nothing_back_for_ever() {
    for (broken, says) in
        [("url = \"file://{folder}/blocked/files\"", "set `archive.url`"), ("min_free_bytes = \"1000TiB\"", "make room")]
    {
        let crm = Recorder::start().await;
        let mut harness = setup(&crm).config(&format!("[archive]\n{broken}\n")).prepare().await;
        // No mode of a folder stops root; what is below a file stops everybody.
        let file = harness.folder().join("blocked");
        fs::write(&file, "").unwrap();
        harness.start().await;
        harness.manus.register(KEY, &harness.url("/webhooks/manus"));
        let task = done(&harness, Plan::finish("Done.").with_file("a.txt", "text/plain", "4")).await;
        harness.drain().await;
        let ready = harness.admin("/readyz").await;
        assert_eq!((&ready["status"], &ready["reasons"][0]["part"]), (&json!("degraded"), &json!("archive")), "{broken}");
        let reason = ready["reasons"][0]["reason"].as_str().expect("a reason");
        assert!(reason.starts_with("the archive ") && reason.contains(says), "{reason}");
        for _ in 0..30 {
            harness.advance(Duration::from_mins(1)).await;
        }
        assert_eq!(statuses(&crm), ["pending"], "{broken}");
        assert_eq!(rows(&harness, &task).await[0]["reason"], "the archive does not work", "{broken}");
        // Mended: what is pending is saved, without a restart where the folder was the trouble.
        fs::remove_file(&file).unwrap();
        if broken.contains("min_free") {
            harness.reconfigure("[archive]\nmin_free_bytes = \"0B\"\n");
            harness.restart().await;
        }
        for _ in 0..4 {
            harness.advance(Duration::from_hours(3)).await;
        }
        assert_eq!(rows(&harness, &task).await[0]["status"], "archived", "{broken}");
        assert_eq!(harness.admin("/readyz").await["status"], "ready", "{broken}");
    }
}
