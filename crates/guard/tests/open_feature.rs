//! Flags as an OpenFeature client asks for them.

use std::time::Duration;

use ::open_feature::{
    EvaluationContext, EvaluationErrorCode, EvaluationReason, FlagMetadataValue, OpenFeature, StructValue,
};
use pgrunbook_guard::driver::tokio_postgres::connecting;
use pgrunbook_guard::flag::bucket::is_in;
use pgrunbook_guard::flag::open_feature::Provider;
use pgrunbook_guard::flag::{Flags, Overrides, Percent, TABLE_SQL, Table};
use pgrunbook_postgres::sandbox::url;
use tokio_postgres::NoTls;

use crate::place::Place;

#[tokio::test]
async fn client_gets_values_with_reasons_and_its_default_with_the_error() {
    let place = Place::new().await;
    place.execute(&format!("SET client_min_messages = warning; {TABLE_SQL}")).await;
    place
        .execute(
            "INSERT INTO pgrunbook.flag VALUES
                 ('all', DEFAULT, 'on', 'off', 100), ('half', DEFAULT, 'on', 'off', 50), ('killed', DEFAULT, 'on', 'off', 100),
                 ('colour', '{\"on\": \"green\", \"off\": \"blue\"}', 'on', 'off', 100),
                 ('limit', '{\"on\": 7, \"off\": 3}', 'on', 'off', 100),
                 ('layout', '{\"on\": {\"columns\": 2}, \"off\": {}}', 'on', 'off', 100),
                 ('forced', DEFAULT, 'on', 'off', 0);
             UPDATE pgrunbook.flag SET enabled = false WHERE name = 'killed'",
        )
        .await;
    let origin = Table(connecting(url(&place.database).parse().unwrap(), NoTls));
    let vars = Overrides::of([("PGRUNBOOK_FLAG_FORCED".to_owned(), "true".to_owned())]);
    let flags = Flags::new(origin).max_age(Duration::ZERO).overrides(vars);
    let mut api = OpenFeature::default();
    api.set_provider(Provider::new(flags)).await;
    let client = api.create_client();
    let anna = EvaluationContext::default().with_targeting_key("anna");

    let found = client.get_bool_details("all", Some(&anna), None).await.unwrap();
    assert_eq!((found.value, &found.reason), (true, &Some(EvaluationReason::Static)));
    assert_eq!(found.variant.as_deref(), Some("on"));
    assert!(matches!(found.flag_metadata.values.get("age_ms"), Some(FlagMetadataValue::Int(_))), "{found:?}");
    let found = client.get_bool_details("half", Some(&anna), None).await.unwrap();
    let inside = is_in("half", "anna", Percent::parse("50").unwrap());
    assert_eq!((found.value, found.reason), (inside, Some(EvaluationReason::Split)));
    let found = client.get_bool_details("killed", Some(&anna), None).await.unwrap();
    assert_eq!((found.value, found.reason), (false, Some(EvaluationReason::Disabled)));
    let found = client.get_bool_details("forced", Some(&anna), None).await.unwrap();
    assert_eq!((found.value, &found.reason), (true, &Some(EvaluationReason::Other("OVERRIDE".to_owned()))));
    let variable = FlagMetadataValue::String("PGRUNBOOK_FLAG_FORCED".to_owned());
    assert_eq!(found.flag_metadata.values.get("override"), Some(&variable));
    assert_eq!(client.get_string_value("colour", Some(&anna), None).await.unwrap(), "green");
    assert_eq!(client.get_int_value("limit", Some(&anna), None).await.unwrap(), 7);
    assert!((client.get_float_value("limit", Some(&anna), None).await.unwrap() - 7.0).abs() < f64::EPSILON);
    let layout: StructValue = client.get_struct_value("layout", Some(&anna), None).await.unwrap();
    assert_eq!((layout.fields.len(), layout.fields["columns"].as_i64()), (1, Some(2)));
    let found = client.get_struct_details::<StructValue>("layout", Some(&anna), None).await.unwrap();
    assert_eq!((found.variant.as_deref(), &found.reason), (Some("on"), &Some(EvaluationReason::Static)));

    let code = |error: ::open_feature::EvaluationError| error.code;
    let error = client.get_bool_value("half", None, None).await.unwrap_err();
    assert_eq!(code(error), EvaluationErrorCode::TargetingKeyMissing);
    let error = client.get_bool_value("nobody", Some(&anna), None).await.unwrap_err();
    assert_eq!(code(error), EvaluationErrorCode::FlagNotFound);
    let error = client.get_int_value("colour", Some(&anna), None).await.unwrap_err();
    assert_eq!(code(error), EvaluationErrorCode::TypeMismatch);
    let error = client.get_struct_value::<StructValue>("colour", Some(&anna), None).await.unwrap_err();
    assert_eq!(code(error), EvaluationErrorCode::TypeMismatch);
}

#[tokio::test]
async fn provider_that_never_read_a_flag_is_not_ready() {
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let origin = Table(connecting(format!("postgres://anna@127.0.0.1:{port}/db").parse().unwrap(), NoTls));
    let mut api = OpenFeature::default();
    api.set_provider(Provider::new(Flags::new(origin))).await;
    let error = api.create_client().get_bool_value("all", None, None).await.unwrap_err();
    assert_eq!(error.code, EvaluationErrorCode::ProviderNotReady);
    assert!(error.message.unwrap().contains("flags cannot be read"));
}
