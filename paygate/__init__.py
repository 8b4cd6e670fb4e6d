"""paygate: a payment gateway that cannot read bank credentials."""
