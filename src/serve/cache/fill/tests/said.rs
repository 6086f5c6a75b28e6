//! What an upstream says of a blob before its bytes come.

use futures::stream;

use super::world::Faults;
use super::{Told, arriving, fills, get};
use crate::serve::cache::fill::FillError;
use crate::serve::upstream::{Arriving, Failure};

/// An answer without bytes would be complete before anything could tell that it is wrong.
#[tokio::test]
async fn a_blob_that_is_said_to_have_no_bytes_is_not_begun() {
    for faults in [Faults::default(), Faults { room: 1, ..Faults::default() }] {
        let (fills, _) = fills(faults);
        let told = Told::to(|_| Ok(Arriving { length: Some(0), ..arriving(stream::empty()) }));
        assert!(matches!(get(&fills, &told).await, Err(FillError::Upstream(Failure::Wrong { .. }))));
    }
}
