//! Who is taken for an agent, when, and how often the API server is asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use jiff::Timestamp;
use tokio::time::advance;

use super::{AGAIN, Agents, Answer, GOOD, NoAgent, Reviews};
use crate::serve::config;

/// What the API server does.
#[derive(Clone, Default)]
enum Script {
    #[default]
    Silent,
    Away,
    Says(Answer),
}

#[derive(Clone, Default)]
struct Server(Arc<(Mutex<Script>, AtomicUsize)>);

impl Server {
    fn script(&self, script: Script) {
        *self.0.0.lock().unwrap() = script;
    }

    fn says(&self, user: &str, audiences: &[&str]) {
        let user = Some(user.to_owned()).filter(|user| !user.is_empty());
        let audiences = audiences.iter().map(|&audience| audience.to_owned()).collect();
        self.script(Script::Says(Answer { user, audiences }));
    }

    fn asked(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

impl Reviews for Server {
    fn review<'a>(&'a self, _token: &'a str, audience: &'a str) -> BoxFuture<'a, Result<Answer, String>> {
        assert_eq!(audience, "wharf.dev/mirror");
        self.0.1.fetch_add(1, Ordering::SeqCst);
        let script = self.0.0.lock().unwrap().clone();
        async move {
            match script {
                Script::Says(answer) => Ok(answer),
                Script::Away => Err("it is away".to_owned()),
                Script::Silent => {
                    tokio::time::sleep(Duration::from_secs(3)).await;
                    Err("it is silent".to_owned())
                }
            }
        }
        .boxed()
    }
}

const AGENT: &str = "system:serviceaccount:wharf-system:wharf-agent";
const MIRROR: &[&str] = &["wharf.dev/mirror"];

fn wanted() -> config::Agents {
    config::Agents { service_account: AGENT.to_owned(), audience: "wharf.dev/mirror".to_owned() }
}

fn agents() -> (Server, Arc<Agents>) {
    let server = Server::default();
    (server.clone(), Arc::new(Agents::new(Some(wanted()), Box::new(server), &[7; 32])))
}

/// A token that ends in so many seconds.
fn token(seconds: i64) -> Vec<u8> {
    let claims = format!("{{\"exp\":{}}}", Timestamp::now().as_second() + seconds);
    format!("head.{}.signature", URL_SAFE_NO_PAD.encode(claims)).into_bytes()
}

/// Until what was begun in the background has got as far as it can.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_account_for_the_audience_is_an_agent() {
    for (user, audiences, expected) in [
        (AGENT, MIRROR, Ok(())),
        (AGENT, &["other", "wharf.dev/mirror"][..], Ok(())),
        // It may be a token for the API server.
        (AGENT, &[], Err(NoAgent::Wrong)),
        (AGENT, &["https://kubernetes.default.svc"], Err(NoAgent::Wrong)),
        ("system:serviceaccount:wharf-system:wharf-agent2", MIRROR, Err(NoAgent::Wrong)),
        ("system:serviceaccount:default:wharf-agent", MIRROR, Err(NoAgent::Wrong)),
        ("", MIRROR, Err(NoAgent::Wrong)),
    ] {
        let (server, agents) = agents();
        server.says(user, audiences);
        assert_eq!(agents.admit(Some(&token(3600))).await, expected, "{user} {audiences:?}");
        assert_eq!(agents.admit(None).await, Err(NoAgent::NoToken));
    }
    let (server, agents) = agents();
    for empty in [&b""[..], b"\xff"] {
        assert_eq!(agents.admit(Some(empty)).await, Err(NoAgent::Wrong));
    }
    agents.change(None);
    assert_eq!((agents.admit(None).await, server.asked()), (Ok(()), 0));
}

#[tokio::test(start_paused = true)]
async fn the_api_server_is_asked_once_for_all_who_wait_and_seldom_later() {
    let (server, agents) = agents();
    server.says(AGENT, MIRROR);
    let (good, wrong) = (token(36_000), token(3601));
    let all = join_all((0..50).map(|_| agents.admit(Some(&good)))).await;
    assert!(all.iter().all(Result::is_ok) && server.asked() == 1, "{}", server.asked());
    server.script(Script::Silent);
    let all = join_all((0..50).map(|_| agents.admit(Some(b"another")))).await;
    assert!(all.iter().all(Result::is_err) && server.asked() == 2, "{}", server.asked());
    server.says(AGENT, MIRROR);
    // Some of the time has gone by in waiting.
    advance(Duration::from_secs(GOOD.as_secs() - 4)).await;
    assert_eq!((agents.admit(Some(&good)).await, server.asked()), (Ok(()), 2));
    server.says("somebody", MIRROR);
    for _ in 0..10 {
        assert_eq!(agents.admit(Some(&wrong)).await, Err(NoAgent::Wrong));
    }
    assert_eq!(server.asked(), 3);
    advance(AGAIN).await;
    assert_eq!((agents.admit(Some(&wrong)).await, server.asked()), (Err(NoAgent::Wrong), 4));
    // Another token says nothing of this one.
    server.says(AGENT, MIRROR);
    assert_eq!(agents.admit(Some(&wrong)).await, Err(NoAgent::Wrong));
    assert_eq!(agents.admit(Some(&good)).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_agent_s_any_more_is_refused_after_it_was_asked_for_again() {
    let (server, agents) = agents();
    let token = token(36_000);
    server.says(AGENT, MIRROR);
    assert_eq!(agents.admit(Some(&token)).await, Ok(()));
    server.says("", &[]);
    // It is asked for behind the answer.
    advance(GOOD).await;
    assert_eq!(agents.admit(Some(&token)).await, Ok(()));
    settle().await;
    assert_eq!((agents.admit(Some(&token)).await, server.asked()), (Err(NoAgent::Wrong), 2));
    // After a long rest, before.
    advance(AGAIN).await;
    server.says(AGENT, MIRROR);
    assert_eq!(agents.admit(Some(&token)).await, Ok(()));
    server.says("", &[]);
    advance(2 * GOOD).await;
    assert_eq!(agents.admit(Some(&token)).await, Err(NoAgent::Wrong));
}

#[tokio::test(start_paused = true)]
async fn what_was_good_stays_so_while_the_api_server_is_away_until_the_token_ends() {
    for script in [Script::Away, Script::Silent] {
        let (server, agents) = agents();
        let (long, short) = (token(36_000), token(7200));
        server.says(AGENT, MIRROR);
        assert_eq!(agents.admit(Some(&long)).await, Ok(()));
        assert_eq!(agents.admit(Some(&short)).await, Ok(()));
        server.script(script);
        assert_eq!(agents.admit(Some(b"never seen")).await, Err(NoAgent::Unknowable));
        for (minutes, expected) in [(11, Ok(())), (60, Ok(())), (48, Ok(())), (2, Err(NoAgent::Unknowable))] {
            advance(Duration::from_secs(minutes * 60)).await;
            assert_eq!(agents.admit(Some(&short)).await, expected, "{minutes}");
            assert_eq!(agents.admit(Some(&long)).await, Ok(()), "{minutes}");
        }
        // Whoever has had to wait for it once does not wait again at once.
        advance(2 * AGAIN).await;
        settle().await;
        let begun = tokio::time::Instant::now();
        for _ in 0..10 {
            assert_eq!(agents.admit(Some(&long)).await, Ok(()));
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_says_nothing_of_its_end_is_asked_for_when_it_is_old() {
    let (server, agents) = agents();
    server.says(AGENT, MIRROR);
    assert_eq!(agents.admit(Some(b"opaque")).await, Ok(()));
    server.script(Script::Away);
    advance(Duration::from_secs(GOOD.as_secs() - 1)).await;
    assert_eq!(agents.admit(Some(b"opaque")).await, Ok(()));
    advance(Duration::from_secs(1)).await;
    assert_eq!(agents.admit(Some(b"opaque")).await, Err(NoAgent::Unknowable));
}

#[tokio::test(start_paused = true)]
async fn who_invents_tokens_does_not_keep_those_out_who_are_known() {
    let (server, agents) = agents();
    server.says(AGENT, MIRROR);
    let token = token(3600);
    assert_eq!(agents.admit(Some(&token)).await, Ok(()));
    server.script(Script::Silent);
    let flood: Vec<_> = (0..100).map(|number| format!("invented {number}").into_bytes()).collect();
    let flood = join_all(flood.iter().map(|invented| agents.admit(Some(invented))));
    let known = async {
        settle().await;
        let begun = tokio::time::Instant::now();
        assert_eq!(agents.admit(Some(&token)).await, Ok(()));
        begun.elapsed()
    };
    let (refused, waited) = futures::join!(flood, known);
    assert!(refused.iter().all(|answer| *answer == Err(NoAgent::Unknowable)));
    assert!(waited.is_zero() && server.asked() <= 1 + 2 * super::AT_ONCE, "{waited:?} {}", server.asked());
}

#[tokio::test(start_paused = true)]
async fn what_was_said_of_one_account_is_nothing_for_another() {
    let (server, agents) = agents();
    server.says(AGENT, MIRROR);
    let token = token(3600);
    assert_eq!(agents.admit(Some(&token)).await, Ok(()));
    agents.change(Some(&config::Agents { service_account: "system:serviceaccount:a:b".to_owned(), ..wanted() }));
    assert_eq!((agents.admit(Some(&token)).await, server.asked()), (Err(NoAgent::Wrong), 2));
    agents.change(Some(&wanted()));
    assert_eq!((agents.admit(Some(&token)).await, server.asked()), (Ok(()), 3));
}
