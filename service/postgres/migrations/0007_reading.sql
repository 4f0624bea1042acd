-- Reading: pages of requests by state, and what was told of an id that was never accepted.

-- page_requests: the newest of each state. (`coalesce` changes nothing here: with it, no other statement can take this
-- index for one of its own, which holds much less.)
create index requests_listed on requests (coalesce(state, 'accepted'), arrival);
-- events_of, missed_of: there are few that were not accepted
create index outbox_answers_of on outbox (request_id) where not stored;
