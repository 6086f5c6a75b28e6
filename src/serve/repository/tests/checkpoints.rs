use std::fs;
use std::io::{Seek, SeekFrom, Write};

use super::{chunk, digest, id, name, open};
use crate::oci::Algorithm;
use crate::serve::repository::{Error, MissingContent};

const LENGTH: usize = 17 * 1024 * 1024;

#[tokio::test]
async fn what_was_hashed_before_an_orderly_stop_is_not_read_again() {
    let root = tempfile::tempdir().unwrap();
    let (a, bytes) = (name("a"), vec![7; LENGTH]);
    let whole = digest(&[&bytes[..], b"rest"].concat());
    let note = |number: u128| root.path().join("wharf/uploads").join(id(number).as_str());
    {
        let repositories = open(root.path(), MissingContent::IndexOnly);
        for number in [1, 2] {
            repositories.begin_upload(&a, id(number), Algorithm::Sha256).await.unwrap();
            repositories.append(&a, &id(number), chunk(&[&bytes])).await.unwrap();
        }
        repositories.begin_upload(&a, id(3), Algorithm::Sha256).await.unwrap();
        repositories.append(&a, &id(3), chunk(&[b"little"])).await.unwrap();
        repositories.suspend_uploads().await;
    }
    assert_eq!([1, 2, 3].map(|number| note(number).join("note").exists()), [true, true, false]);
    // Nobody but this test changes bytes; whoever reads them again sees it.
    for number in [1, 2] {
        let mut file = fs::File::options().write(true).open(note(number).join("data")).unwrap();
        file.seek(SeekFrom::Start(5)).unwrap();
        file.write_all(b"x").unwrap();
    }
    fs::write(note(2).join("note"), "sha256 1\n").unwrap();
    let repositories = open(root.path(), MissingContent::IndexOnly);
    repositories.finish_upload(&a, &id(1), chunk(&[b"rest"]), &whole).await.unwrap();
    let again = repositories.finish_upload(&a, &id(2), chunk(&[b"rest"]), &whole).await;
    assert!(matches!(again, Err(Error::WrongDigest { .. })), "{again:?}");
}

#[tokio::test]
async fn a_checkpoint_of_more_than_is_there_does_not_count() {
    let root = tempfile::tempdir().unwrap();
    let (a, bytes) = (name("a"), vec![7; LENGTH]);
    {
        let repositories = open(root.path(), MissingContent::IndexOnly);
        repositories.begin_upload(&a, id(1), Algorithm::Sha256).await.unwrap();
        repositories.append(&a, &id(1), chunk(&[&bytes])).await.unwrap();
        repositories.suspend_uploads().await;
    }
    let data = root.path().join("wharf/uploads").join(id(1).as_str()).join("data");
    fs::File::options().write(true).open(data).unwrap().set_len(10).unwrap();
    let repositories = open(root.path(), MissingContent::IndexOnly);
    assert_eq!(repositories.upload_progress(&a, &id(1)).await.unwrap().length, 10);
    let cut = digest(&[&bytes[..10], b"rest"].concat());
    repositories.finish_upload(&a, &id(1), chunk(&[b"rest"]), &cut).await.unwrap();
}
