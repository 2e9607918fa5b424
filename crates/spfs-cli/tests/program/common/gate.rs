//! A way to a server that can be shut: transfers stop in the middle for as long as a test wants.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Passes connections on to a server; what the server says is counted, and can be held back.
pub struct Gate {
    address: String,
    /// Bytes that every connection may pass to its client before it is held.
    allowed: AtomicU64,
    /// Bytes that went through to clients.
    passed: AtomicU64,
    /// Connections that have something to pass and may not.
    held: AtomicU64,
    /// Pieces that clients have sent.
    asked: AtomicU64,
}

impl Gate {
    /// A gate to the server at `address`, `grpc://HOST:PORT`; open.
    pub fn to(address: &str) -> Arc<Gate> {
        let server = address.trim_start_matches("grpc://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("grpc://{}", listener.local_addr().unwrap());
        let gate =
            Arc::new(Gate { address, allowed: u64::MAX.into(), passed: 0.into(), held: 0.into(), asked: 0.into() });
        let shared = Arc::clone(&gate);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (server, gate) = (TcpStream::connect(&server).unwrap(), Arc::clone(&shared));
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let asking = Arc::clone(&gate);
                std::thread::spawn(move || asking.ask(from, to));
                std::thread::spawn(move || gate.pass(server, client));
            }
        });
        gate
    }

    /// The address that leads through it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Lets everything through.
    pub fn open(&self) {
        self.close_after(u64::MAX);
    }

    /// Lets nothing through.
    pub fn close(&self) {
        self.close_after(0);
    }

    /// Lets the first `bytes` of every connection through, those that it has passed already among them.
    pub fn close_after(&self, bytes: u64) {
        self.allowed.store(bytes, Ordering::SeqCst);
    }

    /// Bytes that went through to clients.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    /// Connections that have something to pass and may not.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::SeqCst)
    }

    /// How often clients have sent something.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    fn ask(&self, mut client: TcpStream, mut server: TcpStream) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = client.read(&mut buffer) {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if server.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
    }

    fn pass(&self, mut server: TcpStream, mut client: TcpStream) {
        let (mut buffer, mut passed) = (vec![0; 16 << 10], 0);
        while let Ok(count @ 1..) = server.read(&mut buffer) {
            self.held.fetch_add(1, Ordering::SeqCst);
            while passed >= self.allowed.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(2));
            }
            self.held.fetch_sub(1, Ordering::SeqCst);
            passed += count as u64;
            self.passed.fetch_add(count as u64, Ordering::SeqCst);
            if client.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
    }
}
