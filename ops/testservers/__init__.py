"""Real mail servers on the loopback interface, started in a moment and gone with whoever started them.

The demonstration, the benchmarks and the tests use the same ones. All of it is plain synchronous code over
subprocesses: nothing here touches an event loop, so from a Trio task what takes long (`Dovecot.seed`) belongs in
`trio.to_thread.run_sync`.

    process      a server program in its own process group that never outlives us
    tls          a certificate authority, and certificates good and bad
    dovecot      IMAP, LMTP and submission: a private Dovecot 2.3, as root or not (dovecot_conf is what it is told)
    mailbox      what another mail client does to a mailbox: fill, flag, expunge, move, read back
    smtp         a recording SMTP server with AUTH over STARTTLS and TLS (smtp_child is the program)
    hostile      bad IMAP hosts, hundreds at once, and a provider that throttles (hostile_child is the program;
                 hostile_talk, hostile_floods, hostile_lies and hostile_gate what they do)
    mail         realistic messages, the same for the same seed
"""
