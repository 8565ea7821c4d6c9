"""Operating the daemon: the command line, the demonstration, the benchmarks, and the servers tests talk to.

Nobody imports this package: it stands on top of everything.

    testservers   real mail servers on the loopback interface (see there)
    bench         speed and memory, measured beside what others do
    setup.sh      what every make target needs, installed once
"""
