"""The nodes that RABBITMQ_URL names."""

import pytest

from userapi.rabbitmq_nodes import rabbitmq_nodes


@pytest.mark.parametrize(
    ("url", "nodes"),
    [
        ("amqp://", [("amqp://localhost", "localhost", 5672)]),
        ("amqp://h1/v", [("amqp://h1/v", "h1", 5672)]),
        ("AMQPS://h1", [("amqps://h1", "h1", 5671)]),
        (
            "amqp://u:p%2C@h1:5673,h2/v%2Fw",
            [
                ("amqp://u:p%2C@h1:5673/v%2Fw", "h1", 5673),
                ("amqp://u:p%2C@h2/v%2Fw", "h2", 5672),
            ],
        ),
        (
            "amqp://u:p@[::1]:5673,[::2]/",
            [("amqp://u:p@[::1]:5673/", "::1", 5673), ("amqp://u:p@[::2]/", "::2", 5672)],
        ),
        (
            "amqp://u:p@h1/;amqps://x:y@h2,h3/",
            [
                ("amqp://u:p@h1/", "h1", 5672),
                ("amqps://x:y@h2/", "h2", 5671),
                ("amqps://x:y@h3/", "h3", 5671),
            ],
        ),
    ],
)
def test_each_node_has_a_url_of_its_own(url: str, nodes: list[tuple[str, str, int]]) -> None:
    assert [(node.url, node.host, node.port) for node in rabbitmq_nodes(url)] == nodes


def test_the_file_with_authorities_is_an_option_of_the_url() -> None:
    nodes = rabbitmq_nodes("amqps://h1,h2/?ssl_ca_certs=%2Fetc%2Fca.pem")

    assert [(node.url, node.ca_file) for node in nodes] == [
        ("amqps://h1/", "/etc/ca.pem"),
        ("amqps://h2/", "/etc/ca.pem"),
    ]


def test_a_password_does_not_appear_in_logs() -> None:
    (node,) = rabbitmq_nodes("amqp://u:kingfisher-79@h1/")

    assert "kingfisher-79" not in repr(node) + str(node)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h1/",
        "amqp://h1:99999/",
        "amqp://h1:first/",
        "amqp://h1,,h2/",
        "amqp://u:p@,h2/",
        "amqp://h1/;h2",
        "amqp://h1/;",
        "amqp://h1/#first",
        "amqp://h1/?heartbeat=30",
        "amqps://h1/?cafile=/etc/ca.pem",
        "amqp://h1/?ssl_ca_certs=/etc/ca.pem",
    ],
)
def test_what_names_no_nodes_is_rejected(url: str) -> None:
    with pytest.raises(ValueError, match=r"^must (be|have) "):
        rabbitmq_nodes(url)
