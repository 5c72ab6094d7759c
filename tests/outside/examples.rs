//! The payment examples, run as their readers run them, against a stand-in for Stripe: nobody pays twice, or pays for nothing.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use pgrx_tests::{Session, assert_ledger_is_sound, run_dir, shared_cluster, wait_until};
use serde_json::{Value, json};

use crate::workload::{Random, seed};

const PATIENCE: Duration = Duration::from_secs(60);

const SECRET: &str = "whsec_of_the_tests";

#[derive(Clone, Copy, Debug)]
enum Language {
    Node,
    Python,
}

/// Every rule is one of the examples in both languages.
macro_rules! in_both_languages {
    ($($rule:ident),* $(,)?) => {
        mod node {
            $(#[test] fn $rule() { super::$rule(super::Language::Node) })*
        }
        mod python {
            $(#[test] fn $rule() { super::$rule(super::Language::Python) })*
        }
    };
}

in_both_languages!(
    a_top_up_is_charged_and_granted_once,
    a_charge_is_in_the_units_of_its_currency,
    what_cannot_be_charged_fails,
    a_payment_that_was_begun_is_gone_on_with,
    a_charge_whose_answer_says_nothing_is_made_once,
    a_worker_told_to_stop_ends_what_it_has_claimed,
    a_worker_killed_at_any_moment_charges_and_grants_once,
    a_payment_that_the_ledger_does_not_take_is_given_back,
    a_session_delivered_three_times_is_granted_once,
    a_webhook_is_answered_so_that_stripe_does_the_right_thing,
);

/// An example that runs. Dropping it kills it.
struct Program {
    child: Child,
    output: PathBuf,
}

impl Program {
    /// Starts a program of `examples/`, given without its suffix, as `scripts/example_prerequisites.sh` has prepared it.
    fn start(language: Language, program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Program {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let examples = run_dir().join("examples");
        assert!(examples.join("python.stamp").exists(), "run scripts/example_prerequisites.sh first");
        let mut command = match language {
            Language::Node => {
                let mut node = Command::new("node");
                // By their links, so that they find the node_modules beside those.
                node.args(["--preserve-symlinks", "--preserve-symlinks-main"]).arg(examples.join(program).with_extension("mjs"));
                node
            }
            Language::Python => {
                let mut python = Command::new(examples.join("venv/bin/python"));
                python.arg("-B").arg(examples.join(program).with_extension("py"));
                python
            }
        };
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("example-{}-{number}.log", std::process::id()));
        let file = File::create(&output).unwrap_or_else(|error| panic!("cannot write {}: {error}", output.display()));
        command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::null());
        command.stdout(file.try_clone().expect("a file can be opened twice")).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        Program { child, output }
    }

    /// What it has printed so far.
    fn printed(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    fn wait_for(&mut self, text: &str) {
        wait_until(text, PATIENCE, || {
            let is_there = self.printed().contains(text);
            let ended = self.child.try_wait().expect("it is our child");
            assert!(is_there || ended.is_none(), "ended with {ended:?} and printed\n{}", self.printed());
            is_there
        });
    }

    /// Where a server listens, which it says when it does.
    fn url(&mut self) -> String {
        self.wait_for("listening on ");
        let printed = self.printed();
        let (_, rest) = printed.split_once("listening on ").expect("it was there a moment ago");
        rest.lines().next().unwrap_or_default().to_owned()
    }

    /// Waits until it ends by itself, as it should, and returns what it has printed.
    fn end(mut self) -> String {
        let mut status = None;
        wait_until("the example ends", PATIENCE, || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "{status:?}\n{}", self.printed());
        self.printed()
    }

    fn terminate(&self) {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill can be run");
        assert!(status.success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.output);
    }
}

/// One HTTP request: the status and the body of the answer.
fn http(method: &str, url: &str, headers: &str, body: &str) -> (u16, String) {
    let (host, path) = url.trim_start_matches("http://").split_once('/').expect("a URL has a path");
    let mut stream = TcpStream::connect(host).unwrap_or_else(|error| panic!("{url}: {error}"));
    let length = body.len();
    write!(stream, "{method} /{path} HTTP/1.0\r\nhost: {host}\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
        .expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it is answered");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{method} {url}: {answer}")), body.to_owned())
}

/// The stand-in for Stripe, one for each test.
struct Stripe {
    _server: Program,
    url: String,
}

impl Stripe {
    fn start(arguments: &[&str]) -> Stripe {
        let arguments = [&["--port", "0"], arguments].concat();
        let mut server = Program::start(Language::Node, "stripe_stand_in/server", &arguments, &[]);
        let url = server.url();
        Stripe { _server: server, url }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) =
            http(method, &format!("{}{path}", self.url), "content-type: application/json\r\n", &body.to_string());
        assert_eq!(status, 200, "{method} {path}: {answer}");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"))
    }

    fn list(&self, path: &str) -> Vec<Value> {
        self.ask("GET", path, &Value::Null).as_array().cloned().unwrap_or_default()
    }

    /// Every attempt to take money, as `status amount currency top-up`.
    fn charges(&self) -> Vec<String> {
        let line = |charge: Value| {
            let field = |name: &str| charge[name].as_str().unwrap_or("none").to_owned();
            let top_up = charge["metadata"]["top_up_id"].as_str().unwrap_or("none");
            format!("{} {} {} {top_up}", field("status"), charge["amount"], field("currency"))
        };
        self.list("/charges").into_iter().map(line).collect()
    }

    /// The idempotency keys of the requests to create a payment, in their order.
    fn keys(&self) -> Vec<String> {
        let creations = self.list("/requests").into_iter();
        let creations = creations.filter(|request| request["method"] == "POST" && request["path"] == "/v1/payment_intents");
        creations.map(|request| request["idempotency_key"].as_str().unwrap_or("none").to_owned()).collect()
    }

    /// Delivers an event of a Checkout session; the statuses it was answered with.
    fn deliver(&self, checkout: &Value) -> Value {
        self.ask("POST", "/checkouts", checkout)["statuses"].clone()
    }
}

/// A database of the test's own, and how an application's role connects to it.
struct Shop {
    session: Session,
    name: String,
    language: Language,
}

impl Shop {
    fn open(rule: &str, language: Language) -> Shop {
        let name = format!("{rule:.50}_{language:?}").to_lowercase();
        let session = shared_cluster().new_database(&name);
        shared_cluster().create_role(&name);
        Shop { session, name, language }
    }

    /// With access for a worker.
    fn with_worker(rule: &str, language: Language) -> Shop {
        let mut shop = Shop::open(rule, language);
        let role = shop.name.clone();
        shop.session.exec(&format!("select credits.grant_access('{role}', 'writer')"));
        shop
    }

    fn run(&self, program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Program {
        let socket = shared_cluster().socket();
        let host = socket.to_str().expect("our folders have plain names");
        let place = [("PGHOST", host), ("PGPORT", "5432"), ("PGUSER", &*self.name), ("PGDATABASE", &*self.name)];
        Program::start(self.language, program, arguments, &[&place, environment].concat())
    }

    /// A worker that goes on until it is stopped, quick to try again.
    fn work_on(&self, stripe: &Stripe) -> Program {
        self.worker(stripe, &[], "1 second")
    }

    /// Runs a worker until nothing is left to claim; what it printed.
    fn work_once(&self, stripe: &Stripe) -> String {
        self.worker(stripe, &["--once"], "5 minutes").end()
    }

    fn worker(&self, stripe: &Stripe, arguments: &[&str], lease: &str) -> Program {
        let environment = [
            ("STRIPE_API_KEY", "sk_test_of_the_tests"),
            ("STRIPE_API_BASE", &*stripe.url),
            ("TOP_UP_LEASE", lease),
            ("TOP_UP_POLL_SECONDS", "0.1"),
        ];
        self.run("top_up_worker/worker", arguments, &environment)
    }

    /// A new customer with an empty wallet and a saved card, and the id of a top-up that waits to be paid with it.
    fn request_top_up(&mut self, customer: &str, credits: &str, price: &str, payment_method: &str) -> String {
        self.session.exec(&format!("select credits.create_wallet('{customer}')"));
        self.session.exec(&format!(
            "select credits.set_auto_top_up('{customer}', 'default', threshold => 0, amount => {credits}, payment_method_id => '{payment_method}'{price})"
        ));
        self.session.one(&format!("select credits.request_top_up('{customer}')"))
    }

    fn grants(&mut self) -> Vec<String> {
        self.session.lines("select customer_id, amount, unit_price, currency from credits.grants order by customer_id, grant_id")
    }
}

const PRICE: &str = ", unit_price => 0.0125, currency => 'USD'";

fn a_top_up_is_charged_and_granted_once(language: Language) {
    let (mut shop, stripe) = (Shop::with_worker("a_top_up_is_granted_once", language), Stripe::start(&[]));
    let top_up = shop.request_top_up("acme", "1000", PRICE, "pm_card_visa");
    let printed = shop.work_once(&stripe);
    assert!(printed.starts_with(&format!("paid {top_up} of acme: pi_")), "{printed}");
    assert_eq!(shop.work_once(&stripe), "", "nothing is left");
    assert_eq!(stripe.charges(), [format!("succeeded 1250 usd {top_up}")]);
    assert_eq!(stripe.keys(), [top_up]);
    assert_eq!(shop.grants(), ["acme|1000|0.0125|USD"]);
    assert_ledger_is_sound(&mut shop.session);
}

fn a_charge_is_in_the_units_of_its_currency(language: Language) {
    let (mut shop, stripe) = (Shop::with_worker("a_charge_is_in_units", language), Stripe::start(&[]));
    let prices = [
        ("1000", "0.0125", "USD", "1250"),
        ("10", "1.0005", "USD", "1000"), // half to even
        ("10", "1.0015", "USD", "1002"),
        ("0.3", "1.23456789", "EUR", "37"),
        ("1000", "1.5", "JPY", "1500"),       // no decimals
        ("1000", "0.0051237", "KWD", "5120"), // three, the last one 0
        ("1000", "0.7004", "ISK", "70000"),   // two, both 0
        ("1000000000.000000000001", "0.000000000001", "USD", "none"),
    ];
    let mut expected = Vec::new();
    for (number, (credits, price, currency, units)) in prices.iter().enumerate() {
        let price = format!(", unit_price => {price}, currency => '{currency}'");
        let top_up = shop.request_top_up(&format!("customer {number}"), credits, &price, "pm_card_visa");
        if *units != "none" {
            expected.push(format!("succeeded {units} {} {top_up}", currency.to_lowercase()));
        }
    }
    let printed = shop.work_once(&stripe);
    let mut charges = stripe.charges();
    charges.sort();
    expected.sort();
    assert_eq!(charges, expected, "{printed}");
    assert!(printed.contains("1000000000.000000000001 credits cost less than can be charged in USD"), "{printed}");
    assert_eq!(shop.grants().len(), expected.len());
}

fn what_cannot_be_charged_fails(language: Language) {
    let (mut shop, stripe) = (Shop::with_worker("what_cannot_be_charged_fails", language), Stripe::start(&[]));
    for (customer, price, payment_method, reason) in [
        ("unpriced", "", "pm_card_visa", "the top-up has no unit_price and currency"),
        ("declined", PRICE, "pm_card_declined", "generic_decline: Your card was declined."),
        ("unknown", PRICE, "pm_unknown", "resource_missing: No such PaymentMethod: 'pm_unknown'"),
        ("careful", PRICE, "pm_card_authentication", "authentication_required: This needs authentication."),
    ] {
        let top_up = shop.request_top_up(customer, "1000", price, payment_method);
        assert_eq!(shop.work_once(&stripe), format!("failed {top_up} of {customer}: {reason}\n"));
    }
    assert!(stripe.charges().iter().all(|charge| charge.starts_with("failed ")), "{:?}", stripe.charges());
    assert_eq!(stripe.charges().len(), 2, "declined and careful, once each");
    assert_eq!(shop.grants(), [""; 0]);
}

/// The idempotency key would repeat a decline for a day. And the card may be gone when the answer to a charge was lost.
fn a_payment_that_was_begun_is_gone_on_with(language: Language) {
    let (mut shop, stripe) = (Shop::with_worker("a_payment_that_was_begun", language), Stripe::start(&[]));
    for (customer, payment_method, begun_with, status) in [
        ("declined", "pm_card_visa", "&payment_method=pm_card_visa_declined&customer=cus_visa&confirm=true", 402),
        ("paid", "pm_gone", "&payment_method=pm_card_visa&customer=cus_visa&confirm=true", 200),
    ] {
        let top_up = shop.request_top_up(customer, "1000", PRICE, payment_method);
        let form = format!("amount=1250&currency=usd&metadata[top_up_id]={top_up}{begun_with}");
        let headers = format!("authorization: Bearer sk\r\nidempotency-key: {top_up}\r\n");
        assert_eq!(http("POST", &format!("{}/v1/payment_intents", stripe.url), &headers, &form).0, status);
        let payment = stripe.list("/charges").pop().expect("a charge was made")["payment_intent"].clone();
        let payment = payment.as_str().expect("it has a name");
        assert_eq!(shop.work_once(&stripe), format!("paid {top_up} of {customer}: {payment}\n"));
    }
    let statuses = stripe.charges().into_iter().map(|charge| charge.split(' ').next().unwrap_or_default().to_owned());
    assert_eq!(statuses.collect::<Vec<_>>(), ["failed", "succeeded", "succeeded"]);
    assert_eq!(shop.grants(), ["declined|1000|0.0125|USD", "paid|1000|0.0125|USD"]);
}

/// The last try of the SDK included, and after Stripe has forgotten the key.
fn a_charge_whose_answer_says_nothing_is_made_once(language: Language) {
    let (mut shop, stripe) = (Shop::with_worker("a_charge_whose_answer_says_nothing", language), Stripe::start(&[]));
    let top_up = shop.request_top_up("retried", "1000", PRICE, "pm_card_visa");
    stripe.ask("POST", "/faults", &json!({"fault": "lost_answer"}));
    assert!(shop.work_once(&stripe).starts_with(&format!("paid {top_up} of retried: pi_")), "the SDK tried again");
    assert_eq!(stripe.keys(), [&*top_up, &*top_up]);
    assert_eq!(stripe.charges(), [format!("succeeded 1250 usd {top_up}")]);

    let faults = [("lost_answer", 3), ("lost_request", 3), ("server_error", 1), ("unavailable", 3)];
    let mut top_ups = Vec::new();
    for (fault, count) in faults {
        let top_up = shop.request_top_up(fault, "1000", PRICE, &format!("pm_card_{fault}"));
        stripe.ask("POST", "/faults", &json!({"fault": fault, "count": count}));
        let printed = shop.work_once(&stripe);
        assert!(printed.starts_with(&format!("left {top_up} of {fault}: ")) && printed.lines().count() == 1, "{printed}");
        stripe.ask("POST", "/forget_keys", &Value::Null);
        // In place of a lease that runs out.
        shop.session.exec(&format!("select credits.fail_top_up('{fault}', '{top_up}', 'given up', '1 millisecond')"));
        let mut worker = shop.work_on(&stripe);
        worker.wait_for(&format!("paid {top_up} of {fault}: pi_"));
        top_ups.push(top_up);
    }
    let mut charges = stripe.charges().split_off(1);
    charges.sort();
    top_ups.sort();
    assert_eq!(charges, top_ups.iter().map(|top_up| format!("succeeded 1250 usd {top_up}")).collect::<Vec<_>>());
    let granted = ["lost_answer", "lost_request", "retried", "server_error", "unavailable"];
    assert_eq!(shop.grants(), granted.map(|customer| format!("{customer}|1000|0.0125|USD")));
}

fn a_worker_told_to_stop_ends_what_it_has_claimed(language: Language) {
    let (mut shop, stripe) = (Shop::with_worker("a_worker_told_to_stop", language), Stripe::start(&["--delay-ms", "200"]));
    for number in 0..3 {
        shop.request_top_up(&format!("customer {number}"), "1000", PRICE, "pm_card_visa");
    }
    let worker = shop.worker(&stripe, &[], "5 minutes");
    wait_until("it is charging", PATIENCE, || !stripe.charges().is_empty());
    worker.terminate();
    let printed = worker.end();
    assert_eq!(printed.matches("paid ").count(), 3, "{printed}");
    assert_eq!((stripe.charges().len(), shop.grants().len()), (3, 3));
}

fn a_worker_killed_at_any_moment_charges_and_grants_once(language: Language) {
    const TOP_UPS: usize = 20;
    const KILLS: usize = 6;
    let (mut shop, stripe) = (Shop::with_worker("a_worker_killed_at_any_moment", language), Stripe::start(&["--delay-ms", "10"]));
    let mut top_ups: Vec<String> = (0..TOP_UPS)
        .map(|number| shop.request_top_up(&format!("customer {number:02}"), "1000", PRICE, &format!("pm_card_{number}")))
        .collect();
    let mut random = Random::new(seed());
    for _ in 0..KILLS {
        let worker = shop.work_on(&stripe);
        let target = (stripe.charges().len() + 1).min(TOP_UPS);
        wait_until("it is charging", PATIENCE, || stripe.charges().len() >= target);
        // Not always at the same place: within the next charge and its completion.
        thread::sleep(Duration::from_micros(random.below(30_000)));
        drop(worker); // SIGKILL
    }
    let workers = [shop.work_on(&stripe), shop.work_on(&stripe)];
    wait_until("all are granted", PATIENCE, || shop.grants().len() >= TOP_UPS);
    for worker in workers {
        worker.terminate();
        worker.end();
    }
    let mut charges = stripe.charges();
    charges.sort();
    top_ups.sort();
    assert_eq!(charges, top_ups.iter().map(|top_up| format!("succeeded 1250 usd {top_up}")).collect::<Vec<_>>());
    let granted: Vec<String> = (0..TOP_UPS).map(|number| format!("customer {number:02}|1000|0.0125|USD")).collect();
    assert_eq!(shop.grants(), granted);
    assert_ledger_is_sound(&mut shop.session);
}

fn a_payment_that_the_ledger_does_not_take_is_given_back(language: Language) {
    let (mut shop, stripe) = (Shop::with_worker("a_payment_not_taken", language), Stripe::start(&["--delay-ms", "2000"]));
    let top_up = shop.request_top_up("acme", "1000", PRICE, "pm_card_visa");
    let worker = shop.worker(&stripe, &["--once"], "5 minutes");
    wait_until("it has charged", PATIENCE, || !stripe.charges().is_empty());
    // Before it hears of that, somebody completes the top-up with a payment made elsewhere.
    shop.session.exec(&format!("select credits.complete_top_up('acme', '{top_up}', 'paid in cash')"));
    let printed = worker.end();
    assert!(printed.starts_with(&format!("refunded {top_up} of acme: ")), "{printed}");
    let (charges, refunds) = (stripe.list("/charges"), stripe.list("/refunds"));
    assert_eq!((charges.len(), refunds.len()), (1, 1));
    assert_eq!(refunds[0]["payment_intent"], charges[0]["payment_intent"]);
    assert_eq!(shop.grants(), ["acme|1000|0.0125|USD"]);
}

/// The webhook of a shop that sells credits, and where it listens.
fn open_checkout(rule: &str, language: Language) -> (Shop, Program, String) {
    let shop = Shop::open(rule, language);
    let schema = File::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/checkout/schema.sql")).expect("it is there");
    let mut psql = shared_cluster().program("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-v", &format!("role={}", shop.name), &shop.name]).stdin(schema);
    let output = psql.output().expect("psql can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut server = shop.run("checkout/checkout", &[], &[("STRIPE_WEBHOOK_SECRET", SECRET), ("PORT", "0")]);
    let url = server.url();
    (shop, server, url)
}

fn bought(url: &str) -> Value {
    json!({
        "url": format!("{url}/webhook"),
        "secret": SECRET,
        "session": {
            "id": "cs_1",
            "client_reference_id": "acme",
            "metadata": {"credits": "1000", "unit_price": "0.01"},
            "amount_total": 1000,
            "currency": "usd",
            "payment_intent": "pi_1",
        },
    })
}

impl Shop {
    fn orders(&mut self) -> Vec<String> {
        self.session
            .lines("select session_id, customer_id, credits, amount_total, currency, payment_intent from orders order by 1")
    }
}

fn a_session_delivered_three_times_is_granted_once(language: Language) {
    let (mut shop, server, url) = open_checkout("a_session_delivered_three_times", language);
    let stripe = Stripe::start(&[]);
    let mut event = bought(&url);
    event["deliveries"] = json!(3);
    event["at_once"] = json!(2);
    assert_eq!(stripe.deliver(&event), json!([200, 200, 200]), "{}", server.printed());
    assert_eq!(shop.orders(), ["cs_1|acme|1000|1000|usd|pi_1"]);
    assert_eq!(shop.grants(), ["acme|1000|0.01|USD"]);
    assert_eq!(
        shop.session.lines(
            "select metadata, expires_at between now() + interval '90 days' - interval '5 minutes' and now() + interval '90 days'
             from credits.grants"
        ),
        [r#"{"payment_intent": "pi_1"}|t"#]
    );
    let transaction = "select transaction_id, kind, amount from credits.ledger where customer_id = 'acme'";
    assert_eq!(shop.session.lines(transaction), ["cs_1|grant|1000"]);
    server.terminate();
    server.end();
    assert_ledger_is_sound(&mut shop.session);
}

fn a_webhook_is_answered_so_that_stripe_does_the_right_thing(language: Language) {
    let (mut shop, server, url) = open_checkout("a_webhook_is_answered", language);
    let stripe = Stripe::start(&[]);
    let healthz = |expected| assert_eq!(http("GET", &format!("{url}/healthz"), "", "").0, expected);
    healthz(200);
    assert_eq!(http("GET", &format!("{url}/other"), "", "").0, 404);
    let with = |path: &str, value: Value| {
        let mut event = bought(&url);
        *event.pointer_mut(path).unwrap_or_else(|| panic!("{path} is there")) = value;
        event
    };
    let mut late = bought(&url);
    late["session"]["payment_status"] = json!("unpaid");
    let mut other = bought(&url);
    other["type"] = json!("payment_intent.succeeded");
    for (what, event, status) in [
        ("signed by somebody else", with("/secret", json!("whsec_of_somebody_else")), 400),
        ("not yet paid", late.clone(), 200),
        ("something else", other, 200),
        ("of another shop", with("/session/metadata", json!({})), 200),
        ("a database error: no such amount", with("/session/metadata/credits", json!("-1")), 500),
        ("a database error: no customer", with("/session/client_reference_id", Value::Null), 500),
    ] {
        assert_eq!(stripe.deliver(&event), json!([status]), "{what}: {}", server.printed());
        assert_eq!((shop.orders().len(), shop.grants().len()), (0, 0), "{what}");
    }
    for headers in ["", "stripe-signature: \r\n", "stripe-signature: t=1,v1=00\r\n"] {
        assert_eq!(http("POST", &format!("{url}/webhook"), headers, "{}").0, 400, "{headers}");
    }
    late["session"]["payment_status"] = json!("paid");
    late["type"] = json!("checkout.session.async_payment_succeeded");
    assert_eq!(stripe.deliver(&late), json!([200]), "{}", server.printed());
    assert_eq!(shop.orders(), ["cs_1|acme|1000|1000|usd|pi_1"]);
    healthz(200);
}
