"""Transport options of other brokers, which a setting keeps when a project has left them: told once, and ignored.

Source: kombu 5.7, `from_transport_options` and `transport_options` of its transports; their documentation in Celery's
"Backends and Brokers". Names that `sqlalchemy.create_engine` knows are not here: those are the engine's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from kombu.log import get_logger

logger = get_logger(__name__)

_REDIS = (
    "ack_emulation client_name connection_class credential_provider fanout_patterns fanout_prefix"
    " global_keyprefix health_check_interval master_name max_connections min_other_sentinels polling_interval"
    " priority_steps queue_order_strategy reauth_check_interval retry_on_error retry_on_timeout retry_policy"
    " sentinel_fanout_compat sentinel_kwargs sentinels sep socket_connect_timeout socket_keepalive"
    " socket_keepalive_options socket_read_size socket_timeout unacked_index_key unacked_key unacked_mutex_expire"
    " unacked_mutex_key unacked_restore_interval unacked_restore_limit unacked_restore_throttle visibility_timeout"
)
_RABBITMQ = (
    "client_properties confirm_publish confirm_timeout connect_timeout failover_strategy frame_max heartbeat"
    " login_method login_response queue_type read_timeout socket_settings ssl use_ssl write_timeout"
)
_SQS = (
    "access_key_id backoff_policy backoff_tasks endpoint_url fetch_message_attributes is_secure"
    " predefined_exchanges predefined_queues queue_name_prefix queue_tags region regioninfo secret_access_key"
    " session_token sqs-base64-encoding sqs-creation-attributes sqs_base64_encoding sts_role_arn"
    " sts_token_buffer_time sts_token_timeout supports_fanout wait_time_seconds"
)
_OTHERS = (
    "ack_deadline_seconds ack_modify_batch_size allow_create_topics broadcast_collection bulk_max_messages"
    " calc_queue_size capped_queue_size client-config conn_string connection_wait_time_seconds control_folder"
    " data_folder_in data_folder_out deadletter_queue default_database enable_exactly_once_delivery"
    " expiration_seconds fifo_mode init_extension kafka_admin_config kafka_common_config kafka_consumer_config"
    " kafka_producer_config max_lock_renewal_duration max_poll_seconds message_tablename messages_collection"
    " notify_throttle_interval_ms num_partitions peek_lock_seconds poll_interval_ms processed_folder"
    " queue_tablename queues_collection readpreference replication_factor retry_backoff_factor retry_backoff_max"
    " retry_timeout_seconds retry_total routing_collection sasl_mechanism secure security_protocol ssl_certfile"
    " ssl_keyfile ssl_skip_hostname_check ssl_trustfile store_processed topic_config ttl uamqp_keep_alive_interval"
    " use_lock_renewal use_notify"
)

#: Option → of which broker it is.
FOREIGN: Final[Mapping[str, str]] = {
    name: broker
    for broker, names in (
        ("other brokers", _OTHERS),
        ("Amazon SQS", _SQS),
        ("RabbitMQ", _RABBITMQ),
        ("Redis", _REDIS),
    )
    for name in names.split()
}

_told: set[str] = set()


def tell(names: Iterable[str]) -> None:
    """Warn of those that are ignored; once in a process for each."""
    for name in sorted(set(names) - _told):
        _told.add(name)
        logger.warning(
            "broker.option_ignored: the transport option %r is for %s, and means nothing to Postgres."
            " Take it out of broker_transport_options.",
            name,
            FOREIGN[name],
        )
