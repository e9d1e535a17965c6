import flash.errors.Error;
import flash.events.Event;
import flash.events.IOErrorEvent;
import flash.events.ProgressEvent;
import flash.events.SecurityErrorEvent;
import flash.external.ExternalInterface;
import flash.net.Socket;
import flash.system.Security;
import flash.utils.ByteArray;

/**
	TCP sockets for the script of a page: plainsocket-flash.js, whose own the WebSocket protocol is.

	The page calls `psOpen`, `psSend`, `psClose` and `psPolicy`; it is told what happens by the
	function `plainsocketFlash(id, event, data)`. That name is fixed, because ExternalInterface.call
	evaluates the name that it is given. And only pages of the domain that this file came from may
	call, as Security.allowDomain is never used.

	A byte crosses as one character, U+0100 to U+01FF: none of them is a NUL, a byte order mark or
	special in XML or in a script, so no player has anything to escape, to cut or to forget. As
	UTF-8 each is two bytes, 110001xx 10xxxxxx.
**/
class Bridge {
	static inline var PAGE = "plainsocketFlash";

	static final sockets = new Array<Bridge>(); // by id, null those that are over

	final id:Int;
	var socket:Socket;

	static function main() {
		if (!ExternalInterface.available) {
			return;
		}
		ExternalInterface.addCallback("psOpen", function(id:Int, host:String, port:Int, secure:Bool) {
			new Bridge(id, host, port, secure);
		});
		ExternalInterface.addCallback("psSend", function(id:Int, data:String) {
			if (sockets[id] != null) {
				sockets[id].send(data);
			}
		});
		ExternalInterface.addCallback("psClose", function(id:Int) {
			if (sockets[id] != null) {
				sockets[id].end();
			}
		});
		ExternalInterface.addCallback("psPolicy", function(url:String) {
			Security.loadPolicyFile(url);
		});
		tell(0, "ready");
	}

	static function tell(id:Int, event:String, data:String = "") {
		ExternalInterface.call(PAGE, id, event, data);
	}

	function new(id:Int, host:String, port:Int, secure:Bool) {
		this.id = id;
		sockets[id] = this;
		try {
			socket = secure ? secureSocket() : new Socket();
			socket.addEventListener(Event.CONNECT, function(_) tell(id, "open"));
			socket.addEventListener(ProgressEvent.SOCKET_DATA, function(_) receive());
			socket.addEventListener(Event.CLOSE, closed);
			socket.addEventListener(IOErrorEvent.IO_ERROR, closed);
			socket.addEventListener(SecurityErrorEvent.SECURITY_ERROR, closed);
			socket.connect(host, port);
		} catch (_:Error) {
			closed(null);
		}
	}

	/** By its name at run time: a player that lacks the class refuses a file that refers to it. **/
	static function secureSocket():Socket {
		final found = untyped __global__["flash.utils.getDefinitionByName"]("flash.net.SecureSocket");
		return untyped __new__(found);
	}

	function send(data:String) {
		final characters = new ByteArray();
		characters.writeUTFBytes(data);
		final bytes = new ByteArray();
		var i = 0;
		while (i < Std.int(characters.length)) {
			bytes.writeByte(((characters[i] & 3) << 6) | (characters[i + 1] & 63));
			i += 2;
		}
		try {
			socket.writeBytes(bytes);
			socket.flush();
		} catch (_:Error) {
			closed(null);
		}
	}

	function receive() {
		final bytes = new ByteArray();
		socket.readBytes(bytes);
		final characters = new ByteArray();
		for (i in 0...bytes.length) {
			characters.writeByte(0xC4 | (bytes[i] >> 6));
			characters.writeByte(0x80 | (bytes[i] & 63));
		}
		characters.position = 0;
		tell(id, "data", characters.readUTFBytes(characters.length));
	}

	function closed(_:Dynamic) {
		if (sockets[id] != null) {
			sockets[id] = null;
			tell(id, "close");
		}
	}

	function end() {
		sockets[id] = null;
		try {
			socket.close();
		} catch (_:Error) {}
	}
}
