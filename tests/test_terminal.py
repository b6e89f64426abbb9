from vit_backbones.terminal import track


def test_what_is_no_terminal_gets_no_bar(capfd):
    assert list(track([1, 2], 'counting')) == [1, 2]
    assert capfd.readouterr() == ('', '')
