//! The verbs that every simulator's handle has, written once.

/// Gives `$handle`, which has a `core` and its `parts`, the common verbs.
macro_rules! handle {
    ($handle:ident, $faults:ty) => {
        impl $handle {
            /// Waits until everything has ended after the stop signal.
            pub async fn stopped(&self) {
                crate::simulator::core::stopped(&self.parts).await;
            }

            /// The origin to use in place of the provider's.
            #[must_use]
            pub fn base_url(&self) -> String {
                self.core.lock().shelf().base_url.clone()
            }

            /// Does the next step of a task, and waits until its webhooks have answered: the last try of each. Empty if nothing
            /// was sent; `None` if there was no step left.
            pub async fn step(&self, task_id: &str) -> Option<Vec<Delivery>> {
                self.core.step(task_id).await
            }

            /// Does every step of every task until all rest or wait for an answer; then sends what was held back. What was sent.
            pub async fn finish_all(&self) -> Vec<Delivery> {
                self.core.finish_all().await
            }

            /// Waits until no step is planned and nothing is on its way (or until the stop).
            pub async fn idle(&self) {
                self.core.idle().await;
            }

            /// The API calls so far, oldest first; the newest 10,000 are kept.
            #[must_use]
            pub fn requests(&self) -> Vec<Call> {
                self.core.lock().board().calls.to_vec()
            }

            /// The webhook requests so far, oldest first; the newest 10,000 are kept.
            #[must_use]
            pub fn deliveries(&self) -> Vec<Delivery> {
                self.core.lock().board().deliveries.to_vec()
            }

            /// What happens from now on. A listener that is more than 1,024 behind misses some.
            #[must_use]
            pub fn happenings(&self) -> tokio::sync::broadcast::Receiver<Happening> {
                self.core.happenings()
            }

            /// Replaces all faults.
            pub fn set_faults(&self, faults: $faults) {
                *self.core.lock().faults() = faults;
            }

            /// What is left of the faults.
            #[must_use]
            pub fn faults(&self) -> $faults {
                self.core.lock().faults().clone()
            }
        }
    };
}

/// The verbs of a model that only hand out one of its fields: every model has these fields, and all its faults these members.
macro_rules! fields {
    () => {
        fn board(&self) -> &Board {
            &self.board
        }

        fn board_mut(&mut self) -> &mut Board {
            &mut self.board
        }

        fn shelf(&self) -> &Shelf {
            &self.shelf
        }

        fn faults(&mut self) -> &mut Faults {
            &mut self.faults
        }

        fn api_faults(&mut self) -> &mut [ApiFault] {
            &mut self.faults.api
        }

        fn links_expired(&self) -> bool {
            self.faults.links_expired
        }

        fn now(&self) -> Timestamp {
            offset(self.clock.now(), self.faults.clock_offset_seconds)
        }

        fn number(&self, id: &str) -> Option<u64> {
            self.by_id.get(id).copied()
        }
    };
}

pub(super) use {fields, handle};
