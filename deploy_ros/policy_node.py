"""Managed lifecycle node that drives one robot: messages in, `PolicyRunner`, commands and diagnostics out.

``python -m omnibody.deploy_ros.policy_node --ros-args -p robot:=carrier -p checkpoint:=<folder or .onnx>``; with
``autostart`` it configures and activates itself. Topics have the names of the body's ``ros`` interface; remap them
with ``-r odom:=/my/odom``. It commands on the arrival of the readings, at the policy's rate. It exits with 130 after
SIGINT, 143 after SIGTERM and 1 after an exception; a zero command goes out first.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Bool, Header
from std_srvs.srv import SetBool, Trigger

from omnibody.deploy_ros import diagnostics
from omnibody.deploy_ros.backends import load_for
from omnibody.deploy_ros.inputs import READINGS, Inputs
from omnibody.deploy_ros.outputs import COMMAND, Outputs
from omnibody.deploy_ros.runner import STALE_PERIODS, Command, Hold, PolicyRunner
from omnibody.deploy_ros.subscriptions import subscriptions
from omnibody.robots.errors import UserError
from omnibody.robots.table import load_robot

try:  # wakes in a tenth of the time, as it does not look through all that it could wait for at each message
    from rclpy.experimental.events_executor import EventsExecutor as Executor
except ImportError:  # rclpy before 2025
    from rclpy.executors import SingleThreadedExecutor as Executor

if TYPE_CHECKING:
    from omnibody.deploy_ros.recorder import Recorder

PARAMETERS: dict[str, Any] = {
    "robot": "carrier",
    "checkpoint": "",
    "backend": "torch",
    "compressed": False,  # depth and image come from image_transport's compressedDepth and compressed
    "rate_hz": 0.0,  # 0: the rate of the policy's training; another one only when asked for
    "record": "",  # a folder that gets a new rosbag2 of all that is heard and commanded while the node is configured
    "autostart": True,
}
RECORD = QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT)  # hears every publisher
SIMULATOR_PATIENCE = 1.0  # a simulated clock that stood so long has stopped, not only been slow [s]
POLLS = 4  # a period: how often it looks whether readings are overdue
OK, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class PolicyNode(LifecycleNode):
    """See the module's words; the parameters are ``PARAMETERS``."""

    def __init__(self) -> None:
        super().__init__("policy_node")
        for name, default in PARAMETERS.items():
            self.declare_parameter(name, default)
        self._runner: PolicyRunner | None = None
        self._recorder: Recorder | None = None
        self.defect: Exception | None = None  # of ours, which ends the process
        self._active, self._ticking, self._ticked = False, False, 0.0  # the last in steady time [s]
        self._answer: Command | Hold = Hold("unconfigured")
        self._status = self.create_publisher(DiagnosticArray, "/diagnostics", COMMAND)
        self.create_service(SetBool, "engage", self._engage)
        self.create_service(Trigger, "stop", self._stop)
        # Not the ROS clock: a simulator that dies takes /clock with it, and the robot must still stop.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._report, clock=self._steady)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load body and policy; what does not fit leaves the node unconfigured."""
        names = ("robot", "checkpoint", "backend", "rate_hz", "record")
        robot, checkpoint, backend, rate_hz, record = (self.get_parameter(name).value for name in names)
        try:
            runner = PolicyRunner(load_for(backend, Path(checkpoint)), load_robot(robot), rate_hz or None)
            self._recorder = _recorder(record, runner.embodiment.name)
            self._open(runner)
        except Exception as error:  # whatever is wrong, the node must live to say so: rclpy would keep it to itself
            message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            self._say(Hold("unconfigured", message))
            return FAILURE
        self._say(Hold("inactive"))
        return OK

    def _open(self, runner: PolicyRunner) -> None:
        self._runner = runner
        self._inputs, self._outputs = Inputs(runner, self._complain), Outputs(self, runner)
        heard = subscriptions(self, runner, self.get_parameter("compressed").value)
        self._listening = [
            self.create_subscription(one.kind, one.topic, self._taker(one.key), one.qos, raw=one.key == "plan")
            for one in heard
        ]
        if self._recorder is not None:
            also = ((Twist, runner.embodiment.ros.cmd_vel), (DiagnosticArray, "/diagnostics"))
            for kind, topic in (*also, *((one.kind, one.topic) for one in heard)):
                self._listening.append(self._recorder.listen(self, kind, topic, RECORD))
        self._poll = self.create_timer(runner.period / POLLS, self._look)
        self._watch = self.create_timer(runner.period, self._watch_clock, clock=self._steady)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to command."""
        self._active, self._ticked = True, time.monotonic()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop."""
        self.halt(Hold("inactive"))
        self._active = False
        return super().on_deactivate(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop for good."""
        return self.on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget the policy."""
        for timer in (self._poll, self._watch):
            self.destroy_timer(timer)
        for subscription in self._listening:
            self.destroy_subscription(subscription)
        self._outputs.close()
        self.end_recording()
        self._runner = None
        self._say(Hold("unconfigured"))
        return OK

    def end_recording(self) -> None:
        """Close the bag, if there is one."""
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None

    def halt(self, hold: Hold) -> None:
        """Send a zero command now, if it may command at all."""
        if self._runner is not None and self._active:
            self._runner.safety.stopped()
            self._outputs.send(np.zeros(3))
            self._say(hold)

    def _look(self) -> None:
        """Tick if it is time, after all that has come: else a slow policy would keep an estop waiting."""
        if self._due() and not self._ticking:
            assert self.executor is not None
            self._ticking = True
            self.executor.create_task(self._tick_safely)

    def _tick_safely(self) -> None:
        """As a task's exception would end the process without a zero command."""
        try:
            self._tick()
        except Exception as error:
            self.defect = error

    def _due(self) -> bool:
        return self._runner is not None and self._active and self._runner.due(self._now())

    def _now(self) -> float:
        return float(self.get_clock().now().nanoseconds) * 1e-9

    def _tick(self) -> None:
        self._ticking = False
        if self._runner is None or not self._due():
            return
        answer = self._runner.tick(self._now())
        if isinstance(answer, Hold):
            self.halt(answer)
        else:
            self._outputs.send(answer.twist)
            self._say(answer)
            self._outputs.show(self._inputs.frame)
        self._ticked = time.monotonic()

    def _watch_clock(self) -> None:
        """Stop where no tick comes because the ROS clock stands."""
        if self._runner is None or not self._active:
            return
        simulated = self.get_parameter("use_sim_time").value
        patience = SIMULATOR_PATIENCE if simulated else STALE_PERIODS * self._runner.period
        if time.monotonic() - self._ticked > patience:
            self._runner.interrupted()
            self.halt(Hold("stale: clock"))

    def _say(self, answer: Command | Hold) -> None:
        """Remember the answer; a change of state is one line of JSON in the log."""
        last, self._answer = self._answer, answer
        what, detail = (answer.what, answer.detail) if isinstance(answer, Hold) else ("driving", "")
        if what != (last.what if isinstance(last, Hold) else "driving") or what == "unconfigured":
            self.get_logger().info(json.dumps({"state": what, "detail": detail}))
            self._report()

    def _taker(self, topic: str) -> Callable[[Any], None]:
        """What to do with the messages of a topic; a reading may be what a command waits for."""
        take = self._inputs.take
        if topic == "estop":
            return self._estop
        if topic not in READINGS:
            return lambda message: take(topic, message)

        def callback(message: Any) -> None:
            take(topic, message)
            self._look()

        return callback

    def _complain(self, error: str) -> None:
        self.get_logger().error(error, throttle_duration_sec=1.0)

    def _estop(self, message: Bool) -> None:
        assert self._runner is not None
        self._runner.estop = message.data
        if message.data:
            self.halt(Hold("estop"))

    def _engage(self, request: Any, response: Any) -> Any:
        response.success = self._runner is not None
        if self._runner is None:
            response.message = "unconfigured"
            return response
        self._runner.engaged = request.data
        if not request.data:
            self.halt(Hold("disengaged"))
            response.message = "stopped; call engage to go on"
        return response

    def _stop(self, request: Any, response: Any) -> Any:
        return self._engage(SetBool.Request(data=False), response)

    def _report(self) -> None:
        hold = self._answer.reason if isinstance(self._answer, Hold) else ""
        counts = {**self._runner.counts, **self._runner.safety.counts} if self._runner else {}
        counts |= self._recorder.status() if self._recorder else {}
        header = Header(stamp=self.get_clock().now().to_msg())
        name = self.get_fully_qualified_name()[1:]  # /diagnostics is one topic for a whole fleet
        self._status.publish(diagnostics.diagnostics(name, header, hold, counts))


def _recorder(folder: str, name: str) -> Recorder | None:
    if not folder:
        return None
    from omnibody.deploy_ros.recorder import Recorder  # a second of imports that driving does not need

    return Recorder(Path(folder), name)


def main() -> NoReturn:
    """Run the node until a signal or an exception, and leave with the exit code that says which."""
    torch.set_num_threads(1)
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    executor = Executor()
    caught: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):  # after the executor, which would catch them itself
        signal.signal(number, lambda came, _: caught.append(came))
    node, code = PolicyNode(), 1
    executor.add_node(node)
    try:
        if node.get_parameter("autostart").value and node.trigger_configure() == OK:
            node.trigger_activate()
        while not caught:
            executor.spin_once(timeout_sec=0.05)
            if node.defect is not None:
                raise node.defect
        code = 128 + caught[0]
    except Exception:
        traceback.print_exc()
    node.halt(Hold("exit"))
    time.sleep(0.1)  # lets a reliable writer hand over its last message
    node.end_recording()
    node.destroy_node()
    rclpy.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing is left to save, and torch takes seconds to fold up on a busy computer


if __name__ == "__main__":
    main()
