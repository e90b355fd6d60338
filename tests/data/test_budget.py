import threading

from regraft.data.budget import Budget


def test_what_fits_side_by_side_goes_on_at_once_and_what_does_not_waits():
    budget = Budget(100)
    order: list[str] = []

    def large():
        with budget.taken(90):
            order.append("large")

    with budget.taken(60), budget.taken(40):
        order.append("two")
        thread = threading.Thread(target=large)
        thread.start()
        assert order == ["two"]
        order.append("two end")
    thread.join()
    assert order == ["two", "two end", "large"]


def test_what_exceeds_the_limit_is_let_in_alone():
    budget = Budget(100)
    with budget.taken(5000):
        pass
    with budget.taken(5000):
        pass


def test_what_is_given_back_early_lets_another_in():
    budget = Budget(100)
    with budget.taken(100) as taken:
        taken.keep(10)
        with budget.taken(90):
            pass
        taken.keep(0)
    with budget.taken(100):
        pass


def test_what_is_held_is_given_back_after_an_error():
    budget = Budget(100)
    for _ in range(3):
        try:
            with budget.taken(100):
                raise ValueError
        except ValueError:
            pass
    with budget.taken(100):
        pass


def test_many_threads_never_hold_more_than_the_limit_and_all_come_to_their_turn():
    budget = Budget(100)
    held, most, lock = [0], [0], threading.Lock()

    def work(size):
        for _ in range(50):
            with budget.taken(size):
                with lock:
                    held[0] += size
                    most[0] = max(most[0], held[0])
                with lock:
                    held[0] -= size

    threads = [threading.Thread(target=work, args=(size,)) for size in (10, 30, 60, 90, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= 100 and held == [0]
