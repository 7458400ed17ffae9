use crate::open_enum::open_enum;

open_enum! {
    /// What happened: <https://www.revenuecat.com/docs/integrations/webhooks/event-types-and-fields>
    pub enum Kind {
        /// Sent by the dashboard's test button.
        Test = "TEST",
        /// A new subscription, or one taken up again.
        InitialPurchase = "INITIAL_PURCHASE",
        /// A subscription runs on, or is taken up again.
        Renewal = "RENEWAL",
        /// Automatic renewal is off, which keeps access until the end; or a refund, which does not
        /// (`cancel_reason` `CUSTOMER_SUPPORT`).
        Cancellation = "CANCELLATION",
        /// Automatic renewal is on again.
        Uncancellation = "UNCANCELLATION",
        /// A purchase that does not renew: for ever, for a time, or a consumable.
        NonRenewingPurchase = "NON_RENEWING_PURCHASE",
        /// It will pause when the period ends. Access ends with [`Kind::Expiration`].
        SubscriptionPaused = "SUBSCRIPTION_PAUSED",
        /// Access ended. May come late, after a renewal.
        Expiration = "EXPIRATION",
        /// A charge failed; there may be a time of grace.
        BillingIssue = "BILLING_ISSUE",
        /// Another product, now or at the next renewal, which is then told by its own event.
        ProductChange = "PRODUCT_CHANGE",
        /// Purchases moved from some App User IDs to others.
        Transfer = "TRANSFER",
        /// The store moved the end of the period.
        SubscriptionExtended = "SUBSCRIPTION_EXTENDED",
        /// The store could not be asked; RevenueCat grants access for at most 24 hours.
        TemporaryEntitlementGrant = "TEMPORARY_ENTITLEMENT_GRANT",
        /// The store took a refund back.
        RefundReversed = "REFUND_REVERSED",
        /// An invoice of RevenueCat Web Billing.
        InvoiceIssuance = "INVOICE_ISSUANCE",
        /// A balance of virtual currency changed.
        VirtualCurrencyTransaction = "VIRTUAL_CURRENCY_TRANSACTION",
        /// The customer takes part in an experiment.
        ExperimentEnrollment = "EXPERIMENT_ENROLLMENT",
        /// A web purchase was redeemed in the app.
        PurchaseRedeemed = "PURCHASE_REDEEMED",
        /// The customer has to agree to a higher price.
        PriceIncreaseConsentRequired = "PRICE_INCREASE_CONSENT_REQUIRED",
        /// The customer agreed to a higher price.
        PriceIncreaseConsentApproved = "PRICE_INCREASE_CONSENT_APPROVED",
        /// Two App User IDs are one customer. Deprecated.
        SubscriberAlias = "SUBSCRIBER_ALIAS",
        /// A paywall was shown. High volume, as are the next four.
        PaywallImpression = "PAYWALL_IMPRESSION",
        /// A paywall was closed.
        PaywallClose = "PAYWALL_CLOSE",
        /// A purchase was broken off at a paywall.
        PaywallCancel = "PAYWALL_CANCEL",
        /// A paywall showed its exit offer.
        PaywallExitOffer = "PAYWALL_EXIT_OFFER",
        /// A part of a paywall was used.
        PaywallComponentInteracted = "PAYWALL_COMPONENT_INTERACTED",
    }
}
