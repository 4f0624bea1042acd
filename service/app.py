"""The composition root: the only file that knows every class. Constructors do no I/O; `start` does."""
# More than 300 lines because each part is wired here and nowhere else.

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import structlog

from service.domain.claims import Limits
from service.domain.errors import DatabaseUnavailableError
from service.domain.gate import GatePolicy
from service.domain.patience import Patience
from service.http.api import api_routes
from service.http.server import HttpServer
from service.hub.client import HubClient
from service.hub.stream import HubStream
from service.otlp.environment import tracing_of
from service.postgres.database import Database
from service.postgres.feed import FeedReader
from service.postgres.leader import CHANNEL as LEASE_CHANNEL
from service.postgres.leader import LeaseStore
from service.postgres.notifications import Notifications
from service.postgres.outbox import CHANNEL as OUTBOX_CHANNEL
from service.postgres.outbox import Outbox
from service.postgres.overview import StandingReader
from service.postgres.reader import RequestReader
from service.postgres.startup import DatabaseStart
from service.postgres.store import RequestStore
from service.rabbit.bus import RabbitBus
from service.rabbit.consumer import Consumer
from service.rabbit.outlet import ALARM
from service.rabbit.topology import CANCEL_KEY, CANCELS, OWN_QUEUES, REQUEST_KEY, REQUESTS
from service.settings import Settings
from service.supervisor import Component, Supervisor
from service.telemetry import Metrics
from service.wire.builtin_models import BUILTIN_SCHEMAS
from service.wire.requests import RequestRules
from service.workers.admission import Admission
from service.workers.cancels import Cancels
from service.workers.catalogue import Catalogue
from service.workers.census import Census
from service.workers.doubts import Doubts
from service.workers.feed import Feed
from service.workers.gap import Gap
from service.workers.gatekeeper import Gatekeeper
from service.workers.intake import Intake
from service.workers.janitor import Janitor
from service.workers.leadership import Leadership
from service.workers.listener import Listener
from service.workers.quarantine import Quarantine
from service.workers.reconciler import Reconciler
from service.workers.relay import Relay
from service.workers.settler import Elsewhere, Settler
from service.workers.showroom import Showroom
from service.workers.stopper import Stopper
from service.workers.submitter import Submitter
from service.workers.surplus import Surplus
from service.workers.traced import TracedBus
from service.workers.wakeups import Pulse, Wakeups

log = structlog.get_logger(__name__)
CLOSING_S = 4.0  # of the grace, for what a drain that is cut off leaves: half of it to end, half to close
TOO_MANY_FAILURES = 10  # of one component in a row: then only a restart of the process may help


class App:
    """One replica: built from settings, started, stopped."""

    def __init__(self, settings: Settings, **overrides: Any) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self.database = Database(settings.database_url.get_secret_value())
        self.database_start = DatabaseStart(self.database, migrate=settings.migrate_on_start)
        limits = Limits(settings.submit_rate_per_s, settings.max_in_flight)
        self.store = RequestStore(self.database, limits=limits)
        self.outbox = Outbox(self.database)
        self.lease = LeaseStore(self.database, self.holder)
        base_url, api_key = settings.base_url.get_secret_value(), settings.api_key.get_secret_value()
        self.hub = HubClient(
            base_url,
            api_key,
            connections=settings.submit_concurrency,
            submit_timeout_s=settings.submit_timeout_s,
            observe=self.metrics.hub_call,
        )
        self.stream = HubStream(base_url, api_key, idle_timeout_s=settings.stream_idle_timeout_s)
        amqp_url = settings.amqp_url.get_secret_value()
        self.bus = RabbitBus(amqp_url)
        self.consumer = Consumer(amqp_url, REQUESTS)
        self.cancels_consumer = Consumer(amqp_url, CANCELS)
        self.tracing = tracing_of(os.environ, holder=self.holder, hub=base_url)
        self.patience = Patience()
        self.gate_policy = GatePolicy(settings.submit_concurrency)
        for name, part in overrides.items():
            setattr(self, name, part)
        self._connect_parts()

    def _connect_parts(self) -> None:
        settings = self.settings
        self.wakeups = Wakeups()
        self.elsewhere = Elsewhere(self.outbox)
        self.catalogue = Catalogue(self.hub, BUILTIN_SCHEMAS)
        self.settler = Settler(
            self.store, self.outbox, self.wakeups, self.metrics, elsewhere=self.elsewhere, tracing=self.tracing
        )
        self.gap = Gap(self.store, self.hub, self.settler, self.metrics, patience=self.patience)
        rules = request_rules(settings)
        shared = (self.wakeups, self.elsewhere, self.metrics)
        self.intake = Intake(self.store, self.bus, self.consumer, self.catalogue, rules, *shared, tracing=self.tracing)
        self.consumer.deliver_to(self.intake.receive)
        self.cancels = Cancels(
            self.store,
            self.cancels_consumer,
            self.settler,
            Quarantine(self.store, self.bus, self.cancels_consumer, rules, *shared),
            *shared,
        )
        self.cancels_consumer.deliver_to(self.cancels.receive)
        self.gatekeeper = Gatekeeper(self.gate_policy, self.metrics)
        self.submitter = Submitter(
            self.store,
            self.hub,
            self.catalogue,
            self.settler,
            self.gap,
            self.gatekeeper,
            self.wakeups,
            self.metrics,
            holder=self.holder,
            concurrency=settings.submit_concurrency,
            submit_timeout_s=settings.submit_timeout_s,
            tracing=self.tracing,
        )
        self.metrics.consuming.set_function(lambda: self.consumer.consuming)
        self.metrics.publishing_blocked.set_function(lambda: self.bus.blocked)
        self.leadership = Leadership(self.lease, self.elsewhere, self.wakeups, self.metrics, self._leaders_components)
        self.feed = Feed(FeedReader(self.database), self.metrics)
        reader = RequestReader(self.database)
        admission = Admission(
            reader,
            self.catalogue,
            rules,
            self.bus.publish_command,
            request_key=REQUEST_KEY,
            cancel_key=CANCEL_KEY,
        )
        self.http = HttpServer(
            settings.http_host,
            settings.http_port,
            self.metrics,
            alive=self._failing,
            checks={"database": self._database_fault, "broker": self._broker_fault},
            details=self._details,
            routes=api_routes(reader, self.feed, admission, Showroom(self.hub)),
            tokens=settings.api_tokens,
        )
        self.supervisor = Supervisor(self._components())

    def _components(self) -> Sequence[Component]:
        """In the order of the drain: take no more, finish what is paid for, store what is held, publish, hand over."""
        return (
            self.http,
            self.feed,
            self.consumer,
            self.cancels_consumer,
            self.submitter,
            self.intake,
            self.cancels,
            self.leadership,
            self.gap,  # which may wait for the hub, and the next leader for the lease
            self.catalogue,
            Pulse(self.store, self.wakeups),
            Notifications(self.database, {OUTBOX_CHANNEL: self.wakeups.events, LEASE_CHANNEL: self.wakeups.lease}),
            self.bus,
        )

    def _leaders_components(self, term: int) -> Sequence[Component]:
        """What only the leading replica runs, in the order of its drain."""
        reconciler = Reconciler(
            self.store,
            self.hub,
            self.settler,
            self.gap,
            self.wakeups,
            self.metrics,
            interval_s=self.settings.reconcile_interval_s,
        )
        outgoing = TracedBus(self.bus, self.tracing) if self.tracing.on else self.bus
        surplus = Surplus(self.store, self.hub, self.metrics, patience=self.patience)
        return (
            Listener(
                self.stream,
                self.settler,
                reconciler,
                self.lease,
                self.metrics,
                term=term,
                freed=self.wakeups.requests if self.settings.max_in_flight is not None else None,
            ),
            reconciler,
            Doubts(
                self.store,
                self.hub,
                self.settler,
                self.wakeups,
                self.metrics,
                gap=self.gap,
                surplus=surplus,
                price=self.catalogue.price,
                grace_s=self.settings.doubt_grace_s,
                patience=self.patience,
                tracing=self.tracing,
            ),
            surplus,
            Stopper(self.store, self.hub, self.settler, self.gap, self.wakeups, patience=self.patience),
            Relay(self.outbox, outgoing, self.wakeups, self.metrics, term=term),
            Census(StandingReader(self.database), self.metrics, term=term),
            Janitor(self.store, retention=timedelta(days=self.settings.retention_days)),
        )

    # -- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> int:
        """Opens everything and starts the components; the HTTP port. ConfigurationError for what waiting won't mend."""
        port = await self.http.open()
        try:
            self.tracing.open()
            await self.hub.open()
            await self.database_start.run()
            self.supervisor.start()
        except BaseException:
            await self.close()
            raise
        log.info("service.started", holder=self.holder, hub=self.settings.base_url.get_secret_value())
        return port

    async def stop(self) -> None:
        """The ordered drain, and the closing of everything, within the grace whatever does not answer."""
        log.info("service.stopping", grace_s=self.settings.shutdown_grace_s)
        await self.supervisor.stop(self.settings.shutdown_grace_s - CLOSING_S)
        await self.close()
        log.info("service.stopped")

    async def close(self) -> None:
        """Closes what `start` opened."""
        await self.supervisor.end()
        parts = (self.consumer, self.cancels_consumer, self.bus, self.hub, self.database, self.http, self.tracing)
        await asyncio.gather(*(part.close() for part in parts))

    # -- health ---------------------------------------------------------------------------------------------------

    def _failing(self) -> str | None:
        failures = self.supervisor.failures() | self.leadership.failures()
        worst = max(failures.items(), key=lambda item: item[1], default=("", 0))
        return f"{worst[0]} broke {worst[1]} times in a row" if worst[1] >= TOO_MANY_FAILURES else None

    async def _database_fault(self) -> str | None:
        if self.database_start.fault is not None:
            return self.database_start.fault
        try:
            await self.database.check_writable()
        except DatabaseUnavailableError as error:
            return str(error)
        return None

    async def _broker_fault(self) -> str | None:
        for consumer in (self.consumer, self.cancels_consumer):
            if (fault := consumer.fault) is not None:
                return fault
        if not self.bus.connected:
            return "the publishing connection is not open"
        return None

    def _details(self) -> Mapping[str, object]:
        # No reason to be not ready: that an alarm of the broker takes the replicas away would help nobody.
        publishing = f"blocked by the broker: {ALARM}" if self.bus.blocked else "open"
        return {"leading": self.leadership.leading, "publishing": publishing, "paused": self.gatekeeper.paused()}

    async def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Waits until both connections to the broker stand. BrokerUnavailableError."""
        await self.bus.wait_connected(timeout_s)
        async with asyncio.timeout(timeout_s):
            while (reason := await self._broker_fault()) is not None:
                log.debug("service.not_ready", reason=reason)
                await asyncio.sleep(0.05)


def request_rules(settings: Settings) -> RequestRules:
    """What the operator allows in requests."""
    pattern = settings.reply_to_pattern
    return RequestRules(
        default_deadline_s=settings.default_deadline_s,
        target_namespaces=settings.target_namespaces,
        reply_to_pattern=None if pattern is None else re.compile(pattern),
        own_queues=OWN_QUEUES,
    )


def build(settings: Settings, **overrides: Any) -> App:
    """The whole service from its settings; keywords swap single parts."""
    return App(settings, **overrides)
