//! What the metrics of a process say, read as Prometheus would.

use std::collections::BTreeMap;

/// The text of `/metrics`.
pub(super) struct Scrape(String);

impl Scrape {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// The series of a metric: what stands between its braces, and its value.
    fn series<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            Some((labels, value.trim().parse().ok()?))
        })
    }

    /// The sum of all series of a metric.
    pub(super) fn sum(&self, name: &str) -> f64 {
        // An empty sum is a negative zero.
        self.series(name).map(|(_, value)| value).sum::<f64>() + 0.0
    }

    /// The sums by the values of one label.
    pub(super) fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (labels, value) in self.series(name) {
            *sums.entry(value_of(labels, label).unwrap_or_default().to_owned()).or_default() += value;
        }
        sums
    }

    /// The upper bound of the bucket that this part of a histogram falls into, in seconds; none if there is nothing in it, or no
    /// bound above.
    pub(super) fn at_most(&self, name: &str, part: f64) -> Option<f64> {
        let mut buckets: Vec<(f64, f64)> = self
            .by(&format!("{name}_bucket"), "le")
            .into_iter()
            .map(|(bound, count)| (bound.parse().unwrap_or(f64::INFINITY), count))
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let all = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
        buckets.iter().find(|(_, count)| *count >= part * all).map(|(bound, _)| *bound).filter(|bound| bound.is_finite())
    }
}

fn value_of<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|label| label.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_labels_and_buckets_are_read() {
        let text = "# HELP a_total What.\na_total{status=\"200\",x=\"1\"} 5\na_total{status=\"200\",x=\"2\"} 2\na_total{status=\"503\"} 1\n\
                    a_total_more 9\ngauge 4\n\
                    t_bucket{le=\"0.01\"} 90\nt_bucket{le=\"0.1\"} 99\nt_bucket{le=\"+Inf\"} 100\nt_count 100\n";
        let scrape = Scrape::new(text.to_owned());
        assert_eq!((scrape.sum("a_total"), scrape.sum("gauge"), scrape.sum("none")), (8.0, 4.0, 0.0));
        let by: Vec<_> = scrape.by("a_total", "status").into_iter().collect();
        assert_eq!(by, [("200".to_owned(), 7.0), ("503".to_owned(), 1.0)]);
        assert_eq!(
            (scrape.at_most("t", 0.5), scrape.at_most("t", 0.99), scrape.at_most("t", 1.0)),
            (Some(0.01), Some(0.1), None)
        );
        assert_eq!(scrape.at_most("none", 0.5), None);
    }
}
