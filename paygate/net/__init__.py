"""The one module that opens sockets and pipes (R22).

It uses the standard library only and knows no other part of paygate, so a reader can judge the whole of the
network's behaviour here: one loop (`loop`), listening (`listen`) and connecting (`connect`) sockets, the streams
they become (`conn`), what is written down of them on request (`capture`), child programs over pipes (`child`), and
what signals may do (`signals`).

A server's tick is three steps, and nothing leaves outside the third:

    loop.run_once()      # read, accept, fire timers; handlers only take bytes in
    store.commit(...)    # make the tick's records durable
    loop.flush()         # now write, at most one system call for each connection
"""
