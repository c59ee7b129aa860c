"""What tests share: servers, peers, certificates, oracles and makers of valid values."""
