"""The pages of `conpet serve` for people: rendered by the server, usable without JavaScript, in several languages."""
