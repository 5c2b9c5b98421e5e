import com.google.protobuf.CodedInputStream;
import io.grpc.*;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.ClientCalls;
import java.io.*;
import java.security.*;
import java.security.cert.*;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.*;

/** gRPC Java and the JDK's own cryptography against a Workload API over TCP. */
public class SpiffeClient {
    static final MethodDescriptor.Marshaller<byte[]> BYTES = new MethodDescriptor.Marshaller<>() {
        public InputStream stream(byte[] value) { return new ByteArrayInputStream(value); }
        public byte[] parse(InputStream stream) {
            try { return stream.readAllBytes(); } catch (IOException e) { throw new UncheckedIOException(e); }
        }
    };

    static List<byte[]> fields(byte[] message, int wanted) throws IOException {
        List<byte[]> found = new ArrayList<>();
        CodedInputStream in = CodedInputStream.newInstance(message);
        for (int tag = in.readTag(); tag != 0; tag = in.readTag()) {
            if (tag == (wanted << 3 | 2)) found.add(in.readByteArray());
            else in.skipField(tag);
        }
        return found;
    }

    static String tell(byte[] message) throws Exception {
        byte[] svid = fields(message, 1).get(0);
        String id = new String(fields(svid, 1).get(0), "UTF-8");
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        X509Certificate leaf = (X509Certificate) factory.generateCertificates(
            new ByteArrayInputStream(fields(svid, 2).get(0))).iterator().next();
        PrivateKey key = KeyFactory.getInstance("EC").generatePrivate(
            new PKCS8EncodedKeySpec(fields(svid, 3).get(0)));
        X509Certificate authority = (X509Certificate) factory.generateCertificate(
            new ByteArrayInputStream(fields(svid, 4).get(0)));
        Signature sign = Signature.getInstance("SHA256withECDSA");
        sign.initSign(key);
        sign.update(message);
        Signature verify = Signature.getInstance("SHA256withECDSA");
        verify.initVerify(leaf.getPublicKey());
        verify.update(message);
        if (!verify.verify(sign.sign())) throw new Exception("the key is not that of the certificate");
        CertPathValidator validator = CertPathValidator.getInstance("PKIX");
        PKIXParameters parameters = new PKIXParameters(Set.of(new TrustAnchor(authority, null)));
        parameters.setRevocationEnabled(false);
        validator.validate(factory.generateCertPath(List.of(leaf)), parameters);
        String san = leaf.getSubjectAlternativeNames().iterator().next().get(1).toString();
        return id + " " + san + " " + leaf.getSerialNumber().toString(16);
    }

    public static void main(String[] args) throws Exception {
        String[] address = args[0].split(":");
        ManagedChannel channel = NettyChannelBuilder.forAddress(address[0], Integer.parseInt(address[1]))
            .usePlaintext().build();
        MethodDescriptor<byte[], byte[]> method = MethodDescriptor.<byte[], byte[]>newBuilder()
            .setType(MethodDescriptor.MethodType.SERVER_STREAMING)
            .setFullMethodName("SpiffeWorkloadAPI/FetchX509SVID")
            .setRequestMarshaller(BYTES).setResponseMarshaller(BYTES).build();
        try {
            ClientCalls.blockingServerStreamingCall(channel, method, CallOptions.DEFAULT, new byte[0]).next();
        } catch (StatusRuntimeException e) {
            System.out.println("without metadata: " + e.getStatus().getCode());
        }
        Metadata metadata = new Metadata();
        metadata.put(Metadata.Key.of("workload.spiffe.io", Metadata.ASCII_STRING_MARSHALLER), "true");
        Channel withHeader = ClientInterceptors.intercept(channel,
            io.grpc.stub.MetadataUtils.newAttachHeadersInterceptor(metadata));
        Iterator<byte[]> messages =
            ClientCalls.blockingServerStreamingCall(withHeader, method, CallOptions.DEFAULT, new byte[0]);
        try {
            while (messages.hasNext()) System.out.println("svid: " + tell(messages.next()));
            System.out.println("ended: OK");
        } catch (StatusRuntimeException e) {
            System.out.println("ended: " + e.getStatus().getCode());
        }
        channel.shutdownNow();
    }
}
