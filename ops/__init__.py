"""Operating the daemon: the command line, the demonstration, the benchmarks, and the servers tests talk to.

Nobody imports this package: it stands on top of everything.

    __main__      accountsctl: cli_token makes a session, doctor and doctor_database check a set-up, diagrams draws
                  what the README shows of the code, settings_table all settings, access_table who may do what
    demo          the demonstration: demo_servers starts its parts, demo_client is somebody outside
    testservers   real mail servers on the loopback interface (see there)
    bench         speed and memory, measured beside what others do
    soak          campaigns of faults and hostile input against a real daemon
    setup.sh      what every make target needs, installed once
"""
