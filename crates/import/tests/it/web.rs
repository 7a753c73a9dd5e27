//! A web server of one file that breaks off when it is told to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

#[derive(Default)]
pub struct Plan {
    pub content: Vec<u8>,
    pub tag: u32,
    /// Bytes of an answer after which the connection is cut.
    pub cut_after: Option<usize>,
    /// Bytes after which nothing more comes, and the connection stays.
    pub stall_after: Option<usize>,
    /// Where each answer began.
    pub asked: Vec<usize>,
    pub sent: usize,
}

pub struct Web {
    port: u16,
    plan: Arc<Mutex<Plan>>,
}

impl Web {
    pub fn new(content: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let plan = Arc::new(Mutex::new(Plan {
            content,
            ..Plan::default()
        }));
        let shared = Arc::clone(&plan);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let plan = Arc::clone(&shared);
                std::thread::spawn(move || answer(stream.unwrap(), &plan));
            }
        });
        Self { port, plan }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/a.img", self.port)
    }

    pub fn plan<T>(&self, change: impl FnOnce(&mut Plan) -> T) -> T {
        change(&mut self.plan.lock().unwrap())
    }
}

fn answer(mut stream: TcpStream, plan: &Mutex<Plan>) {
    let mut from = None;
    for line in BufReader::new(&stream).lines() {
        let line = line.unwrap_or_default().to_ascii_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse::<usize>().ok();
        }
        if line.is_empty() {
            break;
        }
    }
    let (head, body, stall) = {
        let mut plan = plan.lock().unwrap();
        let total = plan.content.len();
        let begin = from.unwrap_or_default();
        plan.asked.push(begin);
        let status = match from {
            Some(_) => format!(
                "206 Partial Content\r\nContent-Range: bytes {begin}-{}/{total}",
                total - 1
            ),
            None => "200 OK".to_owned(),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nETag: \"{}\"\r\nContent-Length: {}\r\n\r\n",
            plan.tag,
            total - begin
        );
        let mut body = plan.content.get(begin..).unwrap_or_default().to_vec();
        body.truncate(plan.cut_after.or(plan.stall_after).unwrap_or(body.len()));
        plan.sent += body.len();
        (head, body, plan.stall_after.is_some())
    };
    let sent = stream.write_all(head.as_bytes());
    if sent.and_then(|()| stream.write_all(&body)).is_ok() && stall {
        // Until the other side goes.
        let _gone = BufReader::new(&stream).lines().next();
    }
}
