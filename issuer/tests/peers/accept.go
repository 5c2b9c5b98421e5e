// Go's standard library accepts what the issuer signs: each leaf of a folder by its
// strict parser and verifier, each token by its JWK. Standard library only.
package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	folder := os.Args[1]
	roots := x509.NewCertPool()
	check(roots.AppendCertsFromPEM(read(folder, "ca.pem")), "no CA in ca.pem")
	intermediates := x509.NewCertPool()
	intermediates.AppendCertsFromPEM(read(folder, "cross.pem"))
	leaves, err := filepath.Glob(filepath.Join(folder, "leaf-*.pem"))
	fail(err)
	for _, file := range leaves {
		name := filepath.Base(file)
		block, rest := pem.Decode(read(folder, name))
		check(block != nil && len(rest) == 0, name+": not one PEM block")
		leaf, err := x509.ParseCertificate(block.Bytes)
		fail(err)
		for _, purpose := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			_, err = leaf.Verify(x509.VerifyOptions{
				Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{purpose},
			})
			fail(err)
		}
		check(len(leaf.URIs) == 1 && len(leaf.UnhandledCriticalExtensions) == 0, name+": URIs or extensions")
		check(leaf.BasicConstraintsValid && !leaf.IsCA, name+": basic constraints")
		fmt.Println(name, leaf.URIs[0], leaf.Subject, leaf.DNSNames, leaf.IPAddresses, leaf.KeyUsage)
	}
	for _, algorithm := range []string{"ES256", "RS256"} {
		token := strings.TrimSpace(string(read(folder, algorithm+".jwt")))
		fmt.Println(algorithm, verify(token, algorithm, read(folder, "jwks.json")))
	}
}

type jwk struct{ Kid, Kty, Crv, X, Y, N, E string }

// verify returns the subject.
func verify(token, algorithm string, set []byte) string {
	parts := strings.Split(token, ".")
	check(len(parts) == 3, "not compact")
	var header struct{ Alg, Kid string }
	fail(json.Unmarshal(decode(parts[0]), &header))
	check(header.Alg == algorithm, "alg")
	var keys struct{ Keys []jwk }
	fail(json.Unmarshal(set, &keys))
	hash := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	signature := decode(parts[2])
	valid := false
	for _, key := range keys.Keys {
		if key.Kid != header.Kid {
			continue
		}
		switch {
		case algorithm == "ES256" && key.Kty == "EC" && key.Crv == "P-256":
			public := ecdsa.PublicKey{Curve: elliptic.P256(), X: number(key.X), Y: number(key.Y)}
			check(len(signature) == 64, "length of R and S")
			r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
			valid = ecdsa.Verify(&public, hash[:], r, s)
		case algorithm == "RS256" && key.Kty == "RSA":
			public := rsa.PublicKey{N: number(key.N), E: int(number(key.E).Int64())}
			valid = rsa.VerifyPKCS1v15(&public, crypto.SHA256, hash[:], signature) == nil
		}
	}
	check(valid, algorithm+": the signature does not verify")
	var claims struct{ Sub string }
	fail(json.Unmarshal(decode(parts[1]), &claims))
	return claims.Sub
}

func number(text string) *big.Int { return new(big.Int).SetBytes(decode(text)) }

func decode(text string) []byte {
	bytes, err := base64.RawURLEncoding.DecodeString(text)
	fail(err)
	return bytes
}

func read(folder, name string) []byte {
	bytes, err := os.ReadFile(filepath.Join(folder, name))
	fail(err)
	return bytes
}

func check(holds bool, why string) {
	if !holds {
		fail(fmt.Errorf("%s", why))
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
