use std::time::Duration;

use mongodb::options::ServerMonitoringMode;
use proptest::prelude::*;

use super::*;

fn parsed(text: &str) -> ConnectionUri {
    ConnectionUri::parse(text, false).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> StoreError {
    match ConnectionUri::parse(text, false) {
        Ok(_) => panic!("{text} is accepted"),
        Err(error) => error,
    }
}

/// The error for these options, which must be that they are not allowed.
fn refusal(options: &str) -> String {
    let error = error(&format!("mongodb://u:p@h/orders?{options}"));
    assert!(matches!(error, StoreError::UnsafeUri { .. }), "{options}: {error:?}");
    assert!(error.is_misconfigured() && error.reason() == "UnsafeDatabaseUri");
    error.to_string()
}

fn warned(options: &str) -> Vec<&'static str> {
    parsed(&format!("mongodb://h/?{options}")).warnings.iter().map(|warning| warning.option).collect()
}

#[test]
fn a_mechanism_that_uses_the_processs_identity_is_refused_however_it_is_spelled() {
    for options in [
        "authMechanism=MONGODB-OIDC&authMechanismProperties=ENVIRONMENT:k8s",
        "authMechanismProperties=ENVIRONMENT:k8s",
        "AUTHMECHANISM=MONGODB-OIDC",
        "authmechanism=mongodb-oidc",
        "authMechanism=%4dONGODB-OIDC",
        "auth%4dechanism=MONGODB-OIDC",
        "%61uthMechanism=MONGODB-OIDC",
        "retryWrites=true;authMechanism=MONGODB-OIDC",
        "authMechanism=MONGODB-AWS",
        "authMechanism=GSSAPI",
        "authMechanism=PLAIN",
        "authMechanism=MONGODB-CR",
        // It is the tenant's certificate, but there is none.
        "authMechanism=MONGODB-X509",
    ] {
        let text = refusal(options);
        assert!(text.to_lowercase().contains("authmechanism"), "{text}");
        assert!(!text.contains("OIDC") && !text.contains("k8s"), "{text}");
    }
    for twice in [
        "authMechanism=SCRAM-SHA-256&authMechanism=MONGODB-OIDC",
        "authMechanism=SCRAM-SHA-256&AUTHMECHANISM=SCRAM-SHA-1",
        "authSource=a&auth%53ource=b",
        "tls=true&tls=true",
    ] {
        error(&format!("mongodb://u:p@h/?{twice}"));
    }
}

#[test]
fn what_names_a_file_a_proxy_or_weaker_tls_is_refused_with_what_to_do_instead() {
    for (option, instead) in [
        ("tlsCAFile", "spec.database.tls.caSecretRef"),
        ("tlscafile", "--mongo-tls-ca-file"),
        ("sslCA", "spec.database.tls.caSecretRef"),
        ("tlsCertificateKeyFile", "spec.database.tls.clientCertificateSecretRef"),
        ("tlsCertificateKeyFilePassword", "spec.database.tls.clientCertificateSecretRef"),
        ("tlsInsecure", "spec.database.tls.caSecretRef"),
        ("tlsAllowInvalidCertificates", "always verified"),
        ("tlsAllowInvalidHostnames", "always verified"),
        ("proxyHost", "connected to directly"),
        ("autoEncryption", "remove it"),
        ("loadBalanced", "name the servers"),
        ("somethingNew", "docs/database.md"),
    ] {
        let text = refusal(&format!("{option}=true"));
        assert!(text.to_lowercase().contains(&option.to_lowercase()) && text.contains(instead), "{text}");
    }
    let socket = error("mongodb://%2Ftmp%2Fmongodb-27017.sock/orders");
    assert!(matches!(socket, StoreError::UnsafeUri { .. }), "{socket:?}");
    assert!(matches!(error("mongodb:///tmp/mongodb.sock"), StoreError::InvalidUri(_)));
}

#[test]
fn options_of_node_js_are_accepted_with_a_warning_and_ours_hold() {
    let nodes = "compressors=zlib&socketTimeoutMS=0&useNewUrlParser=true&useUnifiedTopology=true&useFindAndModify=false\
                 &useCreateIndex=true&poolSize=5&autoIndex=false&family=4&waitQueueTimeoutMS=1";
    assert_eq!(warned(nodes).len(), 10);
    let weaker = "w=0&journal=false&j=false&wtimeoutMS=1&readConcernLevel=available&readPreference=secondaryPreferred\
                  &readPreferenceTags=a:b&readPreferenceTags=&maxStalenessSeconds=90";
    assert_eq!(
        warned(weaker),
        [
            "w",
            "journal",
            "j",
            "wtimeoutMS",
            "readConcernLevel",
            "readPreference",
            "readPreferenceTags",
            "maxStalenessSeconds"
        ]
    );
    let uri = parsed(&format!("mongodb://h/?{weaker}"));
    let driver = uri.driver;
    assert!(
        driver.write_concern.is_none() && driver.read_concern.is_none() && driver.read_preference.is_none()
    );
    let text = uri.warnings[0].to_string();
    assert!(text.contains("the option w of") && text.contains("majority"), "{text}");
    // As Atlas writes it: nothing to warn of.
    assert!(warned("retryWrites=true&w=majority&readPreference=primary&journal=true").is_empty());
}

#[test]
fn allowed_options_reach_the_driver() {
    let uri = parsed(
        "mongodb://us%40er:p%2Fw:@A.example:27018,[::1]:27019,b/shop%2d1?AUTHSOURCE=admin&authMechanism=SCRAM-SHA-256\
         &replicaSet=rs0&connectTimeoutMS=100&serverSelectionTimeoutMS=200&maxPoolSize=7&minPoolSize=2&maxIdleTimeMS=0\
         &maxConnecting=3&heartbeatFrequencyMS=500&appName=@me@&retryWrites=false&retryReads=TRUE&loadBalanced=false\
         &serverMonitoringMode=poll&ssl=true&tls=true&"
            .replace("p%2Fw:@", "p%2Fw%3A@")
            .as_str(),
    );
    assert_eq!(uri.tls, Some(true));
    assert!(uri.warnings.is_empty());
    let driver = uri.driver;
    let HostInfo::HostIdentifiers(hosts) = &driver.host_info else { panic!("{:?}", driver.host_info) };
    let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["A.example:27018", "::1:27019", "b:27017"]);
    let credential = driver.credential.unwrap();
    assert_eq!(
        (credential.username.as_deref(), credential.password.as_deref()),
        (Some("us@er"), Some("p/w:"))
    );
    assert_eq!(credential.source.as_deref(), Some("admin"));
    assert_eq!(credential.mechanism, Some(AuthMechanism::ScramSha256));
    assert!(credential.mechanism_properties.is_none());
    assert_eq!(driver.default_database.as_deref(), Some("shop-1"));
    assert_eq!(driver.replica_set.as_deref(), Some("rs0"));
    assert_eq!(driver.connect_timeout, Some(Duration::from_millis(100)));
    assert_eq!(driver.server_selection_timeout, Some(Duration::from_millis(200)));
    assert_eq!(
        (driver.max_pool_size, driver.min_pool_size, driver.max_connecting),
        (Some(7), Some(2), Some(3))
    );
    assert_eq!(driver.heartbeat_frequency, Some(Duration::from_millis(500)));
    assert_eq!(driver.max_idle_time, Some(Duration::ZERO));
    assert_eq!(driver.app_name.as_deref(), Some("@me@"));
    assert_eq!((driver.retry_writes, driver.retry_reads), (Some(false), Some(true)));
    assert_eq!(driver.server_monitoring_mode, Some(ServerMonitoringMode::Poll));
    assert_eq!(driver.load_balanced, None);

    let srv = parsed("mongodb+srv://u:p@cluster0.example.net/?srvMaxHosts=3&srvServiceName=orders").driver;
    assert_eq!(srv.host_info, HostInfo::DnsRecord("cluster0.example.net".into()));
    assert_eq!((srv.srv_max_hosts, srv.srv_service_name.as_deref()), (Some(3), Some("orders")));
    assert_eq!(parsed("mongodb://u@h/?authMechanism=DEFAULT").driver.credential.unwrap().mechanism, None);
}

#[test]
fn a_client_certificate_allows_x_509_with_no_password() {
    let x509 = |text: &str| ConnectionUri::parse(text, true);
    let credential = x509("mongodb://h/?authMechanism=MONGODB-X509&authSource=$external")
        .unwrap()
        .driver
        .credential
        .unwrap();
    assert_eq!((credential.mechanism, credential.username), (Some(AuthMechanism::MongoDbX509), None));
    assert!(x509("mongodb://CN=me@h/?authMechanism=MONGODB-X509").is_ok());
    assert!(x509("mongodb://u:p@h/?authMechanism=MONGODB-X509").is_err());
    assert!(x509("mongodb://u:p@h/?authMechanism=MONGODB-OIDC").is_err());
    assert!(x509("mongodb://u:p@h/?authSource=$external").is_err(), "it is only for X.509");
}

#[test]
fn values_out_of_bounds_and_what_contradicts_itself_is_invalid() {
    for options in [
        "maxPoolSize=0",
        "maxPoolSize=1001",
        "minPoolSize=33",
        "minPoolSize=8&maxPoolSize=7",
        "maxPoolSize=-1",
        "maxPoolSize=+1",
        "maxPoolSize=99999999999",
        "maxConnecting=0",
        "connectTimeoutMS=0",
        "connectTimeoutMS=600001",
        "serverSelectionTimeoutMS=soon",
        "heartbeatFrequencyMS=499",
        "tls=yes",
        "tls=true&ssl=false",
        "replicaSet=",
        "appName=%00",
        "appName=%",
        "appName=%4",
        "appName=%zz",
        "appName=%ff",
        "%ff=1",
        "directConnection=true&directConnection=true",
        "srvServiceName=orders",
        "srvMaxHosts=1",
        "retryWrites",
        "=1",
    ] {
        let error = error(&format!("mongodb://u:p@h/?{options}"));
        assert!(error.is_misconfigured(), "{options}: {error}");
    }
    for text in [
        "mongodb://",
        "mongodb://h,",
        "mongodb://h:",
        "mongodb://h:0",
        "mongodb://h:65536",
        "mongodb://h:+1",
        "mongodb://[::1",
        "mongodb://[::1]x",
        "mongodb://[h]",
        "mongodb://::1",
        "mongodb://h ost",
        "mongodb://höst",
        "mongodb://@h",
        "mongodb://:p@h",
        "mongodb://h/a.b",
        "mongodb://h/%zz",
        "mongodb://a,b/?directConnection=true",
        "mongodb://h/?authMechanism=SCRAM-SHA-256",
        "mongodb+srv://h",
        "mongodb+srv://h.example:27017",
        "mongodb+srv://a.example,b.example",
        "mongodb+srv://[::1]",
        "mongodb+srv://h.example/?directConnection=true",
        "mongodb+srv://h.example/?srvMaxHosts=1&replicaSet=rs",
        "mongodb+srv://h.example/?srvServiceName=a.b",
        "http://h",
        "mongo.example",
    ] {
        let error = error(text);
        assert!(
            matches!(error, StoreError::InvalidUri(_) | StoreError::InvalidDatabase(_)),
            "{text}: {error:?}"
        );
    }
    parsed(&format!("mongodb://{}", vec!["h"; MAX_HOSTS as usize].join(",")));
    error(&format!("mongodb://{}", vec!["h"; MAX_HOSTS as usize + 1].join(",")));
    error(&format!("mongodb://{}", "h".repeat(MAX_HOST_LENGTH + 1)));
    error(&format!("mongodb://h/?appName={}", "a".repeat(MAX_LENGTH)));
}

#[test]
fn no_error_and_no_warning_has_a_value() {
    let check = |text: &str| match ConnectionUri::parse(text, false) {
        Ok(uri) => {
            for warning in uri.warnings {
                assert!(!warning.to_string().contains("hunter2"), "{warning}");
            }
        }
        Err(error) => {
            for shown in [error.to_string(), format!("{error:?}"), error.remedy()] {
                assert!(!shown.contains("hunter2"), "{text}: {shown}");
            }
        }
    };
    for option in options::names().chain(["unknown"]) {
        check(&format!("mongodb://u:p@h/?{option}=hunter2"));
        check(&format!("mongodb://u:p@h/?{option}=%hunter2"));
    }
    for text in [
        "mongodb://user:hunter2",
        "mongodb://user:x?hunter2@host/db",
        "mongodb://user:x?hunter2=x@host/db",
        "mongodb://user:x@y?hunter2=x@host/db",
        "mongodb://user:x/hunter2@host/db",
        "mongodb://user:x#hunter2@host/db",
        "mongodb://hunter2:p@host:p/",
        "mongodb://h/?hunter2",
        "mongodb://h/?w=1&hunter2;",
        "hunter2://h",
        "mongodb://h,hunter2:x",
    ] {
        check(text);
    }
}

#[test]
fn the_options_of_the_table_are_different_names() {
    let mut names: Vec<_> = options::names().map(str::to_ascii_lowercase).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in "(mongodb(\\+srv)?://)?[a-zA-Z0-9%@:/?&;=,.$\\[\\]-]{0,60}") {
        if let Ok(uri) = ConnectionUri::parse(&text, false) {
            let credential = uri.driver.credential;
            let mechanism = credential.as_ref().and_then(|credential| credential.mechanism.clone());
            prop_assert!(matches!(mechanism, None | Some(AuthMechanism::ScramSha1 | AuthMechanism::ScramSha256)));
            prop_assert!(credential.is_none_or(|credential| credential.mechanism_properties.is_none()));
            prop_assert!(uri.driver.tls.is_none() && uri.driver.write_concern.is_none());
        }
    }
}
