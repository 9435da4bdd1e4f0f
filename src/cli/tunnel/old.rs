//! Webhooks of tunnels that are no more: a tunnel that was killed leaves its own with the provider, which sends to it for ever.

use url::Url;

use super::super::webhooks::Registrar;
use super::super::{Context, Result};
use crate::action::reach;
use crate::text::one_line;

/// The most that are looked at.
const MOST: usize = 10;

/// What deletes a webhook.
pub(super) fn command(source: &str, id: &str) -> String {
    format!("`taskhook webhooks delete {} --source {source}` deletes it", one_line(id, 80))
}

/// Tells of each webhook of this source that leads to a tunnel where no taskhook answers any more. Deletes none: it may be another
/// machine's.
pub(super) async fn tell(registrar: &Registrar, context: &mut Context<'_>) -> Result {
    // Where nothing can be listed, nothing is told; what the provider does not answer now is no trouble of the tunnel's.
    let Ok(webhooks) = registrar.source.webhooks_list().await else { return Ok(()) };
    let name = registrar.source.name();
    let asked = webhooks.iter().filter_map(|webhook| {
        let url = webhook.url.as_deref()?;
        let base = base(url, name).filter(|_| !registrar.is_ours(url))?;
        Some(async move { (!reach::is_alive(&base).await).then_some((webhook, url)) })
    });
    let dead = futures_util::future::join_all(asked.take(MOST)).await;
    for (webhook, url) in dead.into_iter().flatten() {
        let shown = registrar.shown(url);
        writeln!(context.err, "{shown} is registered too, and no taskhook answers there: {}.", command(name, &webhook.id))?;
    }
    Ok(())
}

/// The base of a URL that is a tunnel's and leads to the source `name`.
fn base(url: &str, name: &str) -> Option<String> {
    let parsed = Url::parse(url).ok()?;
    let (base, rest) = url.split_once("/webhooks/")?;
    let ours = rest == name || rest.strip_prefix(name)?.starts_with('/');
    (ours && is_tunnel(parsed.host_str()?)).then(|| base.to_owned())
}

/// Whether a host is one that tunnels are given.
fn is_tunnel(host: &str) -> bool {
    let mut labels = host.rsplit('.');
    let (Some(_), Some(second), Some(_)) = (labels.next(), labels.next(), labels.next()) else { return false };
    second == "ngrok" || second.starts_with("ngrok-") || host.ends_with(".trycloudflare.com")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tunnels_of_the_source_are_meant() {
        for (url, expected) in [
            ("https://abcd.ngrok-free.app/webhooks/manus", Some("https://abcd.ngrok-free.app")),
            ("https://abcd.eu.ngrok.io/webhooks/manus/t0ken", Some("https://abcd.eu.ngrok.io")),
            ("https://a-b-c.trycloudflare.com/webhooks/manus", Some("https://a-b-c.trycloudflare.com")),
            ("https://abcd.ngrok-free.dev/base/webhooks/manus", Some("https://abcd.ngrok-free.dev/base")),
            ("https://abcd.ngrok-free.app/webhooks/manus2", None),
            ("https://abcd.ngrok-free.app/hook", None),
            ("https://hooks.example.com/webhooks/manus", None),
            ("https://ngrok.io/webhooks/manus", None),
            ("https://ngrok.example.com/webhooks/manus", None),
            ("https://trycloudflare.com.example.com/webhooks/manus", None),
            ("nonsense", None),
        ] {
            assert_eq!(base(url, "manus").as_deref(), expected, "{url}");
        }
    }
}
