"""Where streams live: a folder of this machine, NATS JetStream, Kafka. Each is imported when it is opened."""

__all__: list[str] = []
