//! GoTrue's paging: numbered pages, the total in `X-Total-Count`, the way on in `Link` (RFC 8288).
use crate::{Error, Result};
use axum::http::{HeaderName, HeaderValue, header};
use serde::Deserialize;
use utoipa::IntoParams;

const MAX_PER_PAGE: i64 = 1_000;

/// `?page=` and `?per_page=`; empty is as good as absent, as its clients send it.
#[derive(Debug, Deserialize, IntoParams)]
pub struct Numbered {
    /// From 1.
    #[serde(default)]
    page: String,
    /// How many at most, 1 to 1,000; 50 by default.
    #[serde(default)]
    per_page: String,
}

/// Which rows a page holds.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    page: i64,
    pub limit: i64,
    pub offset: i64,
}

impl Numbered {
    pub fn rows(&self) -> Result<Rows> {
        let number = |text: &str, default| match text {
            "" => Some(default),
            text => text.parse::<i64>().ok().filter(|n| *n >= 1),
        };
        let page = number(&self.page, 1).filter(|page| *page <= 1_000_000);
        let page = page.ok_or_else(|| Error::invalid("page", "has to be a number from 1"))?;
        let limit = number(&self.per_page, 50).filter(|limit| *limit <= MAX_PER_PAGE);
        let limit = limit.ok_or_else(|| Error::invalid("per_page", "has to be 1 to 1,000"))?;
        Ok(Rows {
            page,
            limit,
            offset: (page - 1) * limit,
        })
    }
}

impl Rows {
    /// What says how to go on. `page` stands first in the links, where GoTrue's client looks for it.
    pub fn headers(self, path: &str, total: i64) -> [(HeaderName, HeaderValue); 2] {
        let last = total.div_euclid(self.limit) + i64::from(total % self.limit > 0);
        let link = |page, rel| {
            format!(
                "<{path}?page={page}&per_page={}>; rel=\"{rel}\"",
                self.limit
            )
        };
        let mut links = link(last, "last");
        if self.page < last {
            links = format!("{}, {links}", link(self.page + 1, "next"));
        }
        let links = HeaderValue::from_str(&links).unwrap_or(HeaderValue::from_static(""));
        [
            (HeaderName::from_static("x-total-count"), total.into()),
            (header::LINK, links),
        ]
    }
}
