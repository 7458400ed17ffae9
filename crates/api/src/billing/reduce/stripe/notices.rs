//! What there is to tell the user.
use super::{State, is_paid_up, is_terminal};
use crate::billing::reduce::{News, Notice, Policy, is_news};
use db::{
    Timestamp,
    billing::{Subscription, money::Invoice},
};

impl State {
    /// What there is to say now. Each is said once, whatever says it first.
    pub fn notices(&self, now: Timestamp, policy: &Policy) -> Vec<Notice> {
        let mut notices = vec![];
        for bought in &self.payments {
            if let (Some(_), Some(plan), Some(at)) = (bought.user_id, &bought.plan, bought.paid_at)
                && is_news(at, now)
            {
                notices.push(Notice {
                    key: format!("subscribed:{}", bought.external_id),
                    news: News::Subscribed { plan: plan.clone() },
                });
            }
        }
        let Some(s) = &self.subscription else {
            return notices;
        };
        let (Some(_), Some(plan)) = (s.user_id, s.plan.clone()) else {
            return notices;
        };
        if is_paid_up(&s.status) && s.started_at.is_some_and(|at| is_news(at, now)) {
            notices.push(Notice {
                key: format!("subscribed:{}", s.external_id),
                news: News::Subscribed { plan: plan.clone() },
            });
        }
        // Who never had it does not lose it.
        let had_it = s.paid_up_at.is_some();
        let ended = s.ended_at.filter(|_| s.status == "canceled");
        if had_it && ended.is_some_and(|at| is_news(at, now)) {
            notices.push(Notice {
                key: format!("ended:{}", s.external_id),
                news: News::Ended { plan: plan.clone() },
            });
        }
        if !is_terminal(&s.status) {
            let unpaid = self
                .invoices
                .iter()
                .filter_map(|i| self.unpaid(i, s, &plan, now, policy));
            notices.extend(unpaid);
        }
        notices
    }

    /// The first payment fails before the customer's eyes; renewals fail behind their back.
    fn unpaid(
        &self,
        i: &Invoice,
        s: &Subscription,
        plan: &str,
        now: Timestamp,
        policy: &Policy,
    ) -> Option<Notice> {
        let reason = i.billing_reason.as_deref()?;
        let news = |at: Option<Timestamp>| at.is_some_and(|at| is_news(at, now));
        if i.paid_at.is_some() || reason == "subscription_create" {
            return None;
        }
        let (plan, link) = (plan.to_owned(), i.url.clone());
        let (what, news) = if news(i.action_at) {
            ("action_required", News::ActionRequired { plan, link })
        } else if news(i.failed_at) {
            let until = (s.status == "past_due").then(|| self.unpaid_since(s) + policy.grace);
            ("payment_failed", News::PaymentFailed { plan, until, link })
        } else {
            return None;
        };
        Some(Notice {
            key: format!("{what}:{}", i.external_id),
            news,
        })
    }

    /// Stripe says so three days before, or at once when somebody ends a trial early.
    pub fn trial_ending(&self, now: Timestamp) -> Option<Notice> {
        let s = self.subscription.as_ref()?;
        let (plan, at) = (s.plan.clone()?, s.trial_end?);
        s.user_id?;
        (s.status == "trialing" && at > now).then(|| Notice {
            key: format!("trial_ending:{}:{}", s.external_id, at.unix()),
            news: News::TrialEnding {
                plan,
                at,
                renews: s.will_renew,
            },
        })
    }
}
