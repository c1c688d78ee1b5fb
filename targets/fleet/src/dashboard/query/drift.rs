//! Drift.
use crate::dashboard::source::{Trouble, Viewer};
use crate::dashboard::view::{DriftPage, Frame};
use crate::server::App;

pub(crate) async fn drift(_: &App, _: &Viewer, frame: Frame, _: Option<&str>) -> Result<DriftPage, Trouble> {
    Ok(DriftPage { frame, models: vec![], hours: 24, subjects: vec![], summary: None })
}
