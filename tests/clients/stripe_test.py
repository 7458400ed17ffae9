"""Stripe's SDK for Python, unmodified, against the simulated Stripe of a running server."""

import http.server
import json
import os
import threading
import time
import unittest
import urllib.request

import stripe

WORLD = os.environ["WORLD_URL"]
client = stripe.StripeClient("sk_test_simulated", base_addresses={"api": WORLD}, max_network_retries=2)
v1 = client.v1


def board(path, body):
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"{WORLD}/payments/{path}", data, {"content-type": "application/json"}, method="PUT")
    urllib.request.urlopen(request).close()


def subscribe(price="price_standard", **more):
    customer = v1.customers.create({"email": "ann@example.com", "invoice_settings": {"default_payment_method": "pm_card_visa"}})
    return v1.subscriptions.create({"customer": customer.id, "items": [{"price": price}], **more})


class Python(unittest.TestCase):
    def tearDown(self):
        board("faults", {})

    def test_a_customer_is_made_and_found(self):
        made = v1.customers.create({"email": "ann@example.com", "metadata": {"user_id": "u1"}})
        found = v1.customers.retrieve(made.id)
        self.assertEqual((found.email, found.metadata["user_id"]), ("ann@example.com", "u1"))
        self.assertTrue(made.last_response.request_id.startswith("req_"))

    def test_a_checkout_is_opened(self):
        session = v1.checkout.sessions.create(
            {
                "mode": "subscription",
                "success_url": "https://app.example/done",
                "line_items": [{"price": "price_pro", "quantity": 1}],
                "allow_promotion_codes": True,
                "expand": ["line_items.data.price.product"],
            }
        )
        self.assertEqual((session.status, session.amount_total), ("open", 2900))
        self.assertEqual(session.line_items.data[0].price.product.name, "Pro")
        self.assertEqual(urllib.request.urlopen(session.url).status, 200)

    def test_a_subscription_is_changed_and_left(self):
        made = subscribe()
        item = made["items"].data[0]
        changed = v1.subscriptions.update(made.id, {"items": [{"id": item.id, "price": "price_pro"}], "proration_behavior": "always_invoice"})
        leaving = v1.subscriptions.update(made.id, {"cancel_at_period_end": True})
        ended = v1.subscriptions.cancel(made.id)
        self.assertEqual(changed["items"].data[0].price.id, "price_pro")
        self.assertEqual(leaving.cancel_at, item.current_period_end)
        self.assertEqual(ended.status, "canceled")

    def test_an_old_version_is_shown_what_it_knew(self):
        made = subscribe()
        old = v1.subscriptions.retrieve(made.id, options={"stripe_version": "2024-06-20"})
        self.assertEqual(old.current_period_end, made["items"].data[0].current_period_end)

    def test_pages_are_turned_by_the_sdk_itself(self):
        for number in range(7):
            v1.products.create({"name": f"python {number}"})
        names = [product.name for product in v1.products.list({"limit": 3}).auto_paging_iter() if product.name.startswith("python")]
        self.assertEqual(names, [f"python {number}" for number in range(6, -1, -1)])

    def test_one_idempotency_key_does_one_thing(self):
        once = {"idempotency_key": f"python {time.time()}"}
        first = v1.customers.create({"email": "a@example.com"}, once)
        again = v1.customers.create({"email": "a@example.com"}, once)
        self.assertEqual(first.id, again.id)
        with self.assertRaises(stripe.IdempotencyError):
            v1.customers.create({"email": "b@example.com"}, once)

    def test_a_refusal_is_the_error_that_the_sdk_has_for_it(self):
        with self.assertRaises(stripe.InvalidRequestError) as missing:
            v1.subscriptions.retrieve("sub_none")
        self.assertEqual((missing.exception.code, missing.exception.http_status), ("resource_missing", 404))
        with self.assertRaises(stripe.AuthenticationError):
            stripe.StripeClient("sk_live_1", base_addresses={"api": WORLD}).v1.customers.list()
        with self.assertRaises(stripe.CardError):
            subscribe(default_payment_method="pm_card_visa_chargeDeclined", payment_behavior="error_if_incomplete")

    def test_what_fails_in_between_is_asked_for_again(self):
        board("faults", {"api": "500", "api_times": 2})
        self.assertEqual(v1.prices.retrieve("price_pro").unit_amount, 2900)

    def test_an_event_that_was_delivered_is_verified(self):
        arrived = []

        class Hook(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                arrived.append((body, self.headers["stripe-signature"]))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        hook = http.server.HTTPServer(("127.0.0.1", 0), Hook)
        threading.Thread(target=hook.serve_forever, daemon=True).start()
        endpoint = v1.webhook_endpoints.create({"url": f"http://127.0.0.1:{hook.server_port}/", "enabled_events": ["invoice.paid"]})
        made = subscribe()
        patience = time.monotonic() + 20
        while not arrived and time.monotonic() < patience:
            time.sleep(0.05)
        v1.webhook_endpoints.delete(endpoint.id)
        hook.shutdown()
        hook.server_close()

        event = client.construct_event(*arrived[0], endpoint.secret)
        self.assertEqual((event.type, event.data.object.id), ("invoice.paid", made.latest_invoice))
        with self.assertRaises(stripe.SignatureVerificationError):
            client.construct_event(*arrived[0], "whsec_other")


if __name__ == "__main__":
    unittest.main()
