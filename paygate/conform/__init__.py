"""paygate-conform: plays the other side against any implementation, and says what it does not do as the spec says.

How it is made: `tasks` lets many stories wait on one loop; `wire` is one recorded connection on which any bytes may be
sent; `trial` is what a case is given; `cases` declares and selects cases; `runner` runs them; `report` tells. A role
under test is a catalogue of cases, listed in `roles`; the world that it was set up with is read by `world`.

The codec is used to encode and decode, since it is held by its own tests; what is sent wrongly is put together in
`craft`, which reads the declarations and asks nobody's leave.
"""
