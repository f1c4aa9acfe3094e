"""The SQLite tier keeps the contract; its back doors are connections of their own."""

import apsw
import pytest

from thinkonce.host.mapfile import HostFile, host_path
from thinkonce.testing.tier_contract import TierContract
from thinkonce.tiers.cipher import Cipher
from thinkonce.tiers.sqlite import SqliteTier

SECRET = bytes(range(32))


class TestSqlite(TierContract):
    @pytest.fixture
    def hosts(self):
        hosts = []
        yield hosts
        for host in hosts:
            host.close()

    @pytest.fixture
    def tier(self, tmp_path, clock, hosts):
        self.clock_, self.hosts_ = clock, hosts
        tier = self.make(tmp_path / "deep" / "answers.db")
        yield tier
        tier.close()

    def make(self, path):
        path.parent.mkdir(exist_ok=True)
        host = HostFile(host_path(path))
        self.hosts_.append(host)
        return SqliteTier(path, secret=SECRET, host=host, clock=self.clock_.clock)

    def reopened(self, tier):
        return self.make(tier.path)

    def spoil(self, tier, digest):
        behind = apsw.Connection(str(tier.path))
        behind.set_busy_timeout(5000)  # under a key, the file may be being written anew
        (value,) = behind.execute("SELECT value FROM answers WHERE digest=?", (digest,)).fetchone()
        changed = value[:-1] + bytes([value[-1] ^ 1])
        behind.execute("UPDATE answers SET value=? WHERE digest=?", (changed, digest))
        behind.close()


class TestEncryptedSqlite(TestSqlite):
    """The same promises, kept by what is sealed."""

    def make(self, path):
        path.parent.mkdir(exist_ok=True)
        host = HostFile(host_path(path))
        self.hosts_.append(host)
        cipher = Cipher((bytes(32),))
        return SqliteTier(path, secret=SECRET, host=host, clock=self.clock_.clock, cipher=cipher)
