# mypy: ignore-errors
"""Metaflow's flow: as many tasks as it is told, by `foreach`."""

from metaflow import FlowSpec, Parameter, step


class Tasks(FlowSpec):
    tasks = Parameter("tasks", type=int, default=1)

    @step
    def start(self) -> None:
        self.numbers = list(range(self.tasks))
        self.next(self.successor, foreach="numbers")

    @step
    def successor(self) -> None:
        self.number = self.input + 1
        self.next(self.join)

    @step
    def join(self, inputs) -> None:
        self.total = sum(each.number for each in inputs)
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


if __name__ == "__main__":
    Tasks()
